"""A script of calls of the stock client, step by step: what `test_compare.py` has both controllers answer.

Every step is one thing that a user can do. Results may depend on nothing but the controller: no process ids, no times, no
choice between engines (a step that is balanced is either bound to one engine or leaves out which engine it was).
"""

from __future__ import annotations

import signal

import ipyparallel as ipp
import tasks
from harness import RawPeer, wait_for

STEPS = []


def step(function):
    """Adds a step of which every request is answered."""
    function.answered = True
    STEPS.append(function)
    return function


def unanswered(function):
    """Adds a step of which a stock controller leaves a request without an answer: one to a dead engine, say."""
    step(function).answered = False
    return function


class Script:
    """What steps share."""

    def __init__(self, cluster, recorder, folder):
        self.cluster = cluster
        self.recorder = recorder
        self.folder = folder
        self.rc = None
        self.kept = {}

    def gate(self, name):
        return str(self.folder / name)

    def open(self, name):
        (self.folder / name).touch()

    @property
    def balanced(self):
        """A view that can only choose engine 0."""
        return self.rc.load_balanced_view(targets=[0])

    def query(self, msg_type, content):
        """A request to the hub that the client has no method for."""
        rc = self.rc
        return rc._send_recv(rc._query_stream, msg_type, content=content)["content"]

    def queued(self, result, engine, key="queue"):
        """Waits until the hub lists a result's tasks under an engine; not through the recorder."""
        with RawPeer(self.cluster.connection()) as peer:

            def seen():
                content = peer.query("queue_request", {"targets": None, "verbose": True})["content"]
                return set(result.msg_ids) <= set(content[str(engine)][key])

            wait_for(seen, f"{result.msg_ids} in `{key}` of engine {engine}")

    def started(self, result):
        """Waits until the engine says that it began with a result's task."""

        def heard():
            return any(message.parent in result.msg_ids for message in self.recorder.of(self.recorder.step, "heard"))

        wait_for(heard, f"an engine to begin with {result.msg_ids}")

    def kill_engine(self, engine):
        """The process behind an id: engines were started one after the other."""
        engines = [member for member in self.cluster.members if member.name.startswith("engine")]
        engines[engine].signal(signal.SIGKILL)


# -- connecting and looking


@step
def connect(s):
    s.rc = ipp.Client(str(s.recorder.write(s.folder / "client.json")), timeout=30)
    s.cluster.clients.append(s.rc)
    return s.rc.ids


@step
def queue_status_of_all(s):
    return s.rc.queue_status()


@step
def queue_status_verbose(s):
    return s.rc.queue_status(verbose=True)


@step
def queue_status_of_one(s):
    return s.rc.queue_status(targets=1)


@step
def queue_status_of_nobody(s):
    return s.query("queue_request", {"targets": [77], "verbose": False})


@step
def queue_status_of_nonsense(s):
    return s.query("queue_request", {"targets": {"a": 1}, "verbose": False})


@step
def queue_status_of_an_empty_list(s):
    return s.query("queue_request", {"targets": [], "verbose": True})


@step
def an_unknown_query(s):
    return s.query("nonsense_request", {})


@step
def connection_request_again(s):
    return sorted(s.query("connection_request", {})["engines"])


@step
def history_of_nothing(s):
    return s.rc.hub_history()


# -- direct views


@step
def apply_direct(s):
    s.kept["direct"] = result = s.rc[0].apply_async(tasks.double, 21)
    return result.get(30)


@step
def apply_direct_to_all(s):
    return s.rc[:].apply_sync(tasks.double, 4)


@step
def apply_with_a_label(s):
    view = s.rc[0]
    view.set_flags(label="a label")
    return view.apply_async(tasks.double, 2).get(30)


@step
def apply_with_an_error(s):
    s.kept["failed"] = result = s.rc[0].apply_async(tasks.divide, 1, 0)
    return result.get(30)


@step
def apply_with_output(s):
    result = s.rc[1].apply_async(tasks.speak, "hello")
    result.wait_for_output(30)
    return result.get(30), result.stdout, result.stderr


@step
def execute_direct(s):
    result = s.rc[:].execute("import sys; a = 6 * 7; print(a)", block=True)
    return result.stdout


@step
def execute_with_a_value(s):
    result = s.rc[0].execute("a + 1", silent=False, block=True)
    return str(result.get().execute_result["data"])


@step
def execute_with_an_error(s):
    return s.rc[0].execute("1 / 0", block=True).get()


@step
def push(s):
    return s.rc[:].push({"b": [1, 2, 3]}, block=True)


@step
def pull(s):
    return s.rc[:].pull(("a", "b"), block=True)


@step
def pull_what_is_not_there(s):
    return s.rc[0].pull("nowhere", block=True)


@step
def scatter(s):
    return s.rc[:].scatter("c", list(range(10)), block=True)


@step
def gather(s):
    return s.rc[:].gather("c", block=True)


@step
def map_direct(s):
    return s.rc[:].map_sync(tasks.double, range(7))


@step
def map_direct_with_an_error(s):
    return s.rc[:].map_sync(tasks.divide, [4, 4, 4], [2, 1, 0])


@step
def clear(s):
    return s.rc[:].clear(block=True)


# -- balanced views


@step
def apply_balanced(s):
    s.kept["balanced"] = result = s.balanced.apply_async(tasks.double, 5)
    return result.get(30)


@step
def apply_balanced_with_an_error(s):
    s.kept["balanced failed"] = result = s.balanced.apply_async(tasks.fail, "no")
    return result.get(30)


@step
def apply_balanced_with_output(s):
    result = s.balanced.apply_async(tasks.speak, "balanced")
    result.wait_for_output(30)
    return result.stdout, result.stderr


@step
def map_balanced(s):
    return s.balanced.map_sync(tasks.double, range(6), chunksize=2)


@step
def retries_of_what_fails(s):
    view = s.balanced
    view.retries = 2
    return view.apply_async(tasks.fail, "again").get(30)


@step
def after_a_success(s):
    view = s.balanced
    view.set_flags(after=[s.kept["balanced"]])
    return view.apply_async(tasks.double, 6).get(30)


@step
def follow_a_success(s):
    view = s.balanced
    view.set_flags(follow=[s.kept["balanced"]])
    return view.apply_async(tasks.double, 7).get(30)


@step
def after_a_failure(s):
    view = s.balanced
    view.set_flags(after=[s.kept["balanced failed"]])
    return view.apply_async(tasks.double, 8).get(30)


@step
def after_a_failure_that_is_wanted(s):
    view = s.balanced
    view.set_flags(after=ipp.Dependency([s.kept["balanced failed"]], success=False, failure=True))
    return view.apply_async(tasks.double, 9).get(30)


@step
def after_what_nobody_knows(s):
    view = s.balanced
    view.set_flags(after=ipp.Dependency(["nobody-knows-this"]))
    return view.apply_async(tasks.double, 10).get(30)


@unanswered
def follow_where_it_is_not_allowed(s):
    view = s.rc.load_balanced_view(targets=[1])
    view.set_flags(follow=[s.kept["balanced"]])
    return view.apply_async(tasks.double, 11).get(2)


@step
def a_timeout_of_a_dependency(s):
    first = s.rc.load_balanced_view(targets=[1]).apply_async(tasks.stay_for_nothing, s.gate("timeout"))
    view = s.balanced
    view.set_flags(after=[first], timeout=0.2)
    try:
        return view.apply_async(tasks.double, 12).get(30)
    finally:
        s.open("timeout")
        first.get(30)


@step
def a_function_that_depends_and_does_not_find(s):
    return s.balanced.apply_async(ipp.depend(tasks.pid_is, -1)(tasks.double), 13).get(30)


@step
def a_function_that_requires_a_module(s):
    return s.balanced.apply_async(ipp.require("os")(tasks.double), 14).get(30)


# -- broadcast views


@step
def broadcast(s):
    return s.rc.broadcast_view().apply_sync(tasks.double, 15)


@step
def broadcast_that_coalesces(s):
    return s.rc.broadcast_view(is_coalescing=True).apply_sync(tasks.double, 16)


@step
def broadcast_with_an_error(s):
    return s.rc.broadcast_view().apply_sync(tasks.fail, "everywhere")


@step
def broadcast_that_executes(s):
    return s.rc.broadcast_view().execute("print('here')", block=True).stdout


@step
def broadcast_push_and_pull(s):
    view = s.rc.broadcast_view()
    view.push({"d": 3}, block=True)
    return view.pull("d", block=True)


# -- results and records


@step
def result_status_of_what_is_done(s):
    ids = s.kept["direct"].msg_ids + s.kept["balanced"].msg_ids
    return s.query("result_request", {"msg_ids": ids, "status_only": True})


@step
def results_of_a_direct_task(s):
    return s.query("result_request", {"msg_ids": s.kept["direct"].msg_ids, "status_only": False})


@step
def results_of_a_balanced_task(s):
    return s.query("result_request", {"msg_ids": s.kept["balanced"].msg_ids, "status_only": False})


@step
def results_of_a_failed_task(s):
    return s.query("result_request", {"msg_ids": s.kept["failed"].msg_ids, "status_only": False})


@step
def result_status_of_what_runs(s):
    running = s.rc[0].apply_async(tasks.stay_for_nothing, s.gate("running"))
    s.queued(running, 0)
    try:
        return s.query("result_request", {"msg_ids": running.msg_ids, "status_only": True})
    finally:
        s.open("running")
        running.get(30)


@step
def result_of_what_nobody_knows(s):
    return s.query("result_request", {"msg_ids": ["nobody-knows-this"], "status_only": True})


@step
def result_again_from_the_hub(s):
    ids = s.kept["balanced"].msg_ids
    s.rc.purge_local_results(ids)
    return s.rc.get_result(ids, owner=False).get(30)


@step
def history(s):
    return [msg_id in s.rc.hub_history() for msg_id in s.kept["direct"].msg_ids]


@step
def db_query_of_one(s):
    return s.rc.db_query({"msg_id": s.kept["direct"].msg_ids[0]})


@step
def db_query_of_one_balanced(s):
    return s.rc.db_query({"msg_id": s.kept["balanced"].msg_ids[0]})


@step
def db_query_with_keys(s):
    query = {"msg_id": {"$in": s.kept["direct"].msg_ids + s.kept["failed"].msg_ids}}
    return s.rc.db_query(query, keys=["msg_id", "submitted", "completed", "engine_uuid", "queue", "error"])


@step
def db_query_by_date(s):
    from datetime import datetime, timezone

    return s.rc.db_query({"completed": {"$gt": datetime(2100, 1, 1, tzinfo=timezone.utc)}}, keys=["msg_id"])


@step
def db_query_that_makes_no_sense(s):
    return s.rc.db_query({"msg_id": {"$nonsense": 1}})


@step
def load(s):
    return s.query("load_request", {"targets": [0, 1]})


@step
def resubmit(s):
    (s.kept["resubmitted"],) = s.rc.resubmit(s.kept["balanced"].msg_ids).msg_ids
    with RawPeer(s.cluster.connection()) as peer:

        def done():
            content = {"msg_ids": [s.kept["resubmitted"]], "status_only": True}
            return not peer.query("result_request", content)["content"]["pending"]

        wait_for(done, "the hub to have the result of what was resubmitted")
    return "resubmitted"


@step
def result_of_what_was_resubmitted(s):
    return s.query("result_request", {"msg_ids": [s.kept["resubmitted"]], "status_only": False})["completed"]


@step
def resubmit_what_nobody_knows(s):
    return s.query("resubmit_request", {"msg_ids": ["nobody-knows-this"]})


# -- abort, signals, purge


@step
def abort_a_direct_task(s):
    running = s.rc[0].apply_async(tasks.stay_for_nothing, s.gate("abort direct"))
    waiting = s.rc[0].apply_async(tasks.double, 1)
    s.queued(waiting, 0)
    s.rc.abort(waiting.msg_ids, targets=[0], block=True)
    s.open("abort direct")
    running.get(30)
    return waiting.get(30)


@step
def abort_what_is_done(s):
    return s.rc.abort(s.kept["direct"].msg_ids, targets=[0], block=True)


@step
def abort_what_nobody_knows(s):
    return s.rc.abort(["nobody-knows-this"], targets=[0, 1], block=True)


@step
def send_a_signal(s):
    return s.rc.send_signal(signal.SIGCONT, targets=[0, 1], block=True)


@step
def purge_one(s):
    ids = s.kept["direct"].msg_ids
    return s.query("purge_request", {"msg_ids": ids, "engine_ids": []})


@step
def result_of_what_was_purged(s):
    return s.query("result_request", {"msg_ids": s.kept["direct"].msg_ids, "status_only": True})


@step
def purge_what_nobody_knows(s):
    return s.query("purge_request", {"msg_ids": ["nobody-knows-this"], "engine_ids": []})


@step
def purge_what_runs(s):
    running = s.rc[0].apply_async(tasks.stay_for_nothing, s.gate("purge"))
    s.queued(running, 0)
    try:
        return s.query("purge_request", {"msg_ids": running.msg_ids, "engine_ids": []})
    finally:
        s.open("purge")
        running.get(30)


@step
def purge_by_an_engine_that_is_not_there(s):
    return s.query("purge_request", {"msg_ids": [], "engine_ids": [77]})


@step
def purge_everything(s):
    return s.query("purge_request", {"msg_ids": "all", "engine_ids": []})


@step
def history_after_the_purge(s):
    return s.rc.hub_history()


# -- engines come and go


@step
def an_engine_comes(s):
    s.cluster.start_engine()
    wait_for(lambda: s.rc.ids == [0, 1, 2], "the third engine")
    return s.rc[2].apply_sync(tasks.double, 3)


@step
def an_engine_is_shut_down(s):
    s.rc.shutdown(targets=[2], block=True)
    wait_for(lambda: s.rc.ids == [0, 1], "the third engine to go")
    return s.rc.ids


@unanswered
def an_engine_dies_with_a_direct_task(s):
    running = s.rc[1].apply_async(tasks.stay_for_nothing, s.gate("never"))
    s.queued(running, 1)
    s.started(running)
    s.kill_engine(1)
    wait_for(lambda: s.rc.ids == [0], "the second engine to go")
    return running.get(30)


@step
def an_engine_dies_with_a_balanced_task(s):
    running = s.rc.load_balanced_view().apply_async(tasks.stay_for_nothing, s.gate("never"))
    s.queued(running, 0, "tasks")
    s.started(running)
    s.kill_engine(0)
    wait_for(lambda: s.rc.ids == [], "the first engine to go")
    return running.get(30)


@step
def queue_status_without_engines(s):
    return s.query("queue_request", {"targets": None, "verbose": False})["unassigned"]


@step
def shut_down_the_hub(s):
    s.rc.shutdown(hub=True, block=True)
    s.cluster.controller.wait(30)
    return s.cluster.controller.process.returncode
