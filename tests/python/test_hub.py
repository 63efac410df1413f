"""What the hub knows: queues, results, history, records."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import ipyparallel as ipp
import pytest
import tasks
from harness import RawPeer, wait_for


def settled(rc):
    """Returns when the hub has seen the result of all that this client submitted: it hears later than the client."""

    def seen():
        status = rc.queue_status(verbose=True)
        completed = {msg_id for engine in rc.ids for msg_id in status[engine]["completed"]}
        return completed >= set(rc.history)

    wait_for(seen, "the hub to have seen every result")


def test_queue_status_counts(rc, gate):
    before = rc.queue_status()
    results = [rc[0].apply_async(tasks.stay, gate.path) for _ in range(3)]
    wait_for(lambda: rc.queue_status(0)["queue"] == 3, "the hub to see three tasks")
    status = rc.queue_status()
    assert set(status) == {0, 1, "unassigned"}
    assert status[0] == {"queue": 3, "completed": before[0]["completed"], "tasks": 0}
    assert status[1] == before[1]
    gate.open()
    for result in results:
        result.get(60)
    settled(rc)
    assert rc.queue_status(0) == {"queue": 0, "completed": before[0]["completed"] + 3, "tasks": 0}


def test_queue_status_verbose_lists_ids(rc, gate):
    view = rc.load_balanced_view()
    running = [view.apply_async(tasks.stay, gate.path) for _ in range(2)]
    waiting = view.apply_async(tasks.double, 1)
    direct = rc[1].apply_async(tasks.double, 1)

    def all_seen():
        status = rc.queue_status(verbose=True)
        on_engines = sorted(status[0]["tasks"] + status[1]["tasks"])
        return (
            on_engines == sorted(result.msg_ids[0] for result in running)
            and status["unassigned"] == waiting.msg_ids
            and status[1]["queue"] == direct.msg_ids
        )

    wait_for(all_seen, "the hub to list every task in its place")
    gate.open()
    waiting.get(60)
    direct.get(60)
    settled(rc)
    status = rc.queue_status(verbose=True)
    completed = status[0]["completed"] + status[1]["completed"]
    for result in (*running, waiting, direct):
        assert completed.count(result.msg_ids[0]) == 1
    assert direct.msg_ids[0] in status[1]["completed"]


def test_queue_status_of_nobody(shared):
    with RawPeer(shared.connection()) as peer:
        reply = peer.query("queue_request", {"targets": [77], "verbose": False})
    assert reply["content"]["status"] == "error"
    assert reply["content"]["ename"] == "IndexError"
    assert "77" in reply["content"]["evalue"]


def test_result_status(rc, gate):
    done = rc[0].apply_async(tasks.double, 1)
    done.get(60)
    held = rc[0].apply_async(tasks.stay, gate.path)
    ids = [done.msg_ids[0], held.msg_ids[0]]

    def both():
        try:
            status = rc.result_status(ids)
        except ipp.RemoteError:
            return False  # the hub has not seen them yet
        return status["completed"] == ids[:1] and status["pending"] == ids[1:]

    wait_for(both, "one task completed, one pending")
    gate.open()
    held.get(60)
    settled(rc)


def test_a_second_client_gets_the_result(rc, shared):
    direct = rc[0].apply_async(tasks.double, 3)
    balanced = rc.load_balanced_view().apply_async(tasks.double, 4)
    failed = rc.load_balanced_view().apply_async(tasks.divide, 1, 0)
    assert direct.get(60) == 6
    assert balanced.get(60) == 8
    with pytest.raises(ipp.RemoteError):
        failed.get(60)
    settled(rc)
    other = shared.client()
    assert other.get_result(direct.msg_ids[0], owner=False).get(60) == 6
    assert other.get_result(balanced.msg_ids[0], owner=False).get(60) == 8
    with pytest.raises(ipp.RemoteError) as caught:
        other.get_result(failed.msg_ids[0], owner=False).get(60)
    assert caught.value.ename == "ZeroDivisionError"


def test_a_second_client_waits_for_a_result(rc, shared, gate):
    held = rc[0].apply_async(tasks.stay, gate.path)
    wait_for(lambda: rc.queue_status(0)["queue"] == 1, "the hub to see the task")
    waiting = shared.client().get_result(held.msg_ids[0], owner=False)
    assert not waiting.ready()
    gate.open()
    assert waiting.get(60) == held.get(60)
    settled(rc)


def test_an_unknown_result(shared):
    with RawPeer(shared.connection()) as peer:
        reply = peer.query("result_request", {"msg_ids": ["no-such-task"], "status_only": False})
    assert reply["content"]["status"] == "error"
    assert "no-such-task" in reply["content"]["evalue"]


def test_history_is_in_the_order_of_submission(rc):
    results = [rc[number % 2].apply_async(tasks.double, number) for number in range(10)]
    for result in results:
        result.get(60)
    settled(rc)
    ids = [result.msg_ids[0] for result in results]
    assert rc.hub_history()[-10:] == ids


def test_records_can_be_queried(rc):
    before = datetime.now(timezone.utc)
    result = rc[1].apply_async(tasks.double, 5)
    result.get(60)
    failed = rc.load_balanced_view().apply_async(tasks.fail, "no")
    with pytest.raises(ipp.RemoteError):
        failed.get(60)
    settled(rc)
    (record,) = rc.db_query({"msg_id": result.msg_ids[0]})
    assert record["queue"] == "mux"
    assert record["engine_uuid"] == rc._engines[1]
    assert record["client_uuid"] == rc.session.session
    assert before - timedelta(seconds=5) <= record["submitted"] <= record["completed"]
    assert record["result_content"]["status"] == "ok"
    found = rc.db_query({"submitted": {"$gte": before}}, keys=["msg_id", "queue"])
    assert {record["msg_id"] for record in found} == {result.msg_ids[0], failed.msg_ids[0]}
    (record,) = rc.db_query({"msg_id": {"$in": failed.msg_ids}}, keys=["queue", "result_content", "buffers"])
    assert record["queue"] == "task"
    assert record["result_content"]["ename"] == "ValueError"
    assert len(record["buffers"]) >= 2


def test_labels_are_kept(rc):
    view = rc[0]
    with view.temp_flags(label="a läbel"):
        result = view.apply_async(tasks.double, 1)
    result.get(60)
    settled(rc)
    found = rc.db_query({"label": "a läbel"}, keys=["msg_id"])
    assert [record["msg_id"] for record in found] == result.msg_ids


def test_purged_results_are_gone(rc, shared):
    result = rc[0].apply_async(tasks.double, 1)
    kept = rc[0].apply_async(tasks.double, 2)
    result.get(60)
    kept.get(60)
    settled(rc)
    msg_id = result.msg_ids[0]
    rc.purge_results(jobs=[msg_id])
    assert msg_id not in rc.results
    assert rc.db_query({"msg_id": msg_id}, keys=["msg_id"]) == []
    assert len(rc.db_query({"msg_id": kept.msg_ids[0]}, keys=["msg_id"])) == 1
    with pytest.raises(ipp.RemoteError):
        shared.client().get_result(msg_id, owner=False, block=True)


def test_what_is_pending_is_not_purged(rc, gate):
    held = rc[0].apply_async(tasks.stay, gate.path)
    wait_for(lambda: rc.queue_status(0)["queue"] == 1, "the hub to see the task")
    with pytest.raises(ipp.RemoteError) as caught:
        rc.purge_hub_results(jobs=held.msg_ids)
    assert caught.value.ename == "IndexError"
    gate.open()
    held.get(60)
    settled(rc)


def test_resubmit_runs_again(rc, tmp_path):
    log = tmp_path / "log"
    result = rc.load_balanced_view().apply_async(tasks.note, str(log), "ran")
    result.get(60)
    settled(rc)
    again = rc.resubmit(result.msg_ids[0], block=False)
    again.get(60)
    assert again.msg_ids != result.msg_ids
    assert log.read_text() == "ran\nran\n"


def test_purge_of_everything(start_cluster):
    cluster = start_cluster(engines=1)
    rc = cluster.client()
    rc[0].apply_sync(tasks.double, 1)
    settled(rc)
    assert len(rc.hub_history()) == 1
    rc.purge_everything()
    assert rc.hub_history() == []


@pytest.mark.parametrize("db", ["--dictdb", "--sqlitedb"])
def test_stores(start_cluster, db):
    cluster = start_cluster(db, engines=1)
    rc = cluster.client()
    results = [rc[0].apply_async(tasks.double, number) for number in range(5)]
    assert [result.get(60) for result in results] == [0, 2, 4, 6, 8]
    settled(rc)
    ids = [result.msg_ids[0] for result in results]
    assert rc.hub_history() == ids
    assert cluster.client().get_result(ids[3], owner=False).get(60) == 6


def test_without_a_store_tasks_run_all_the_same(start_cluster):
    cluster = start_cluster("--nodb", engines=1)
    rc = cluster.client()
    result = rc[0].apply_async(tasks.double, 1)
    assert result.get(60) == 2
    settled(rc)
    assert rc.result_status(result.msg_ids)["completed"] == result.msg_ids
    with pytest.raises(ipp.RemoteError) as caught:
        rc.hub_history()
    assert caught.value.ename == "NoData"
