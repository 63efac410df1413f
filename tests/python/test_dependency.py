"""Dependencies in time (`after`), in place (`follow`), and of functions (`depend`, `require`)."""

from __future__ import annotations

import os
import signal

import ipyparallel as ipp
import pytest
import tasks
from harness import assigned, wait_for


@pytest.fixture
def view(rc):
    return rc.load_balanced_view()


def error_of(result):
    with pytest.raises(ipp.RemoteError) as caught:
        result.get(60)
    return caught.value.ename


@pytest.fixture
def failed(view):
    result = view.apply_async(tasks.fail, "meant to")
    assert error_of(result) == "ValueError"
    return result


@pytest.fixture
def done(view):
    result = view.apply_async(tasks.double, 1)
    assert result.get(60) == 2
    return result


def test_after_waits_for_all(view, tmp_path, gate):
    log = tmp_path / "log"
    held = view.apply_async(tasks.stay, gate.path)
    first = view.apply_async(tasks.note, str(log), "first")
    with view.temp_flags(after=[held, first]):
        last = view.apply_async(tasks.note, str(log), "last")
    first.get(60)
    # Whatever comes now on the free engine has overtaken the one that waits.
    view.apply_async(tasks.note, str(log), "between").get(60)
    assert not last.done()
    gate.open()
    last.get(60)
    assert log.read_text().split() == ["first", "between", "last"]


def test_after_any_waits_for_one(view, gate, done):
    held = view.apply_async(tasks.stay, gate.path)
    with view.temp_flags(after=ipp.Dependency([held, done], all=False)):
        result = view.apply_async(tasks.double, 2)
    assert result.get(60) == 4
    assert not held.done()
    gate.open()
    held.get(60)


def test_a_chain_runs_in_order(view, tmp_path):
    log = tmp_path / "log"
    results = []
    for number in range(20):
        with view.temp_flags(after=results[-1:]):
            results.append(view.apply_async(tasks.note, str(log), number))
    results[-1].get(60)
    assert log.read_text().split() == [str(number) for number in range(20)]


def test_follow_runs_on_the_same_engine(view):
    for _ in range(5):
        first = view.apply_async(tasks.pid)
        with view.temp_flags(follow=first):
            second = view.apply_async(tasks.pid)
        assert second.get(60) == first.get(60)


def test_follow_any_of_two_engines(rc, view):
    firsts = []
    for engine in rc.ids:
        with view.temp_flags(targets=[engine]):
            firsts.append(view.apply_async(tasks.pid))
    pids = {first.get(60) for first in firsts}
    with view.temp_flags(follow=ipp.Dependency(firsts, all=False)):
        assert view.apply_async(tasks.pid).get(60) in pids


def test_follow_all_of_two_engines_is_impossible(rc, view):
    firsts = []
    for engine in rc.ids:
        with view.temp_flags(targets=[engine]):
            firsts.append(view.apply_async(tasks.pid))
    for first in firsts:
        first.get(60)
    with view.temp_flags(follow=firsts):
        assert error_of(view.apply_async(tasks.pid)) == "ImpossibleDependency"


def test_after_a_failure_is_impossible(view, failed):
    with view.temp_flags(after=[failed]):
        assert error_of(view.apply_async(tasks.double, 1)) == "ImpossibleDependency"


def test_what_waits_becomes_impossible(view, gate):

    doomed = view.apply_async(tasks.stay_and_fail, gate.path)
    with view.temp_flags(after=[doomed]):
        waiting = view.apply_async(tasks.double, 1)
    with view.temp_flags(after=[waiting]):
        behind = view.apply_async(tasks.double, 1)
    gate.open()
    assert error_of(doomed) == "ValueError"
    assert error_of(waiting) == "ImpossibleDependency"
    assert error_of(behind) == "ImpossibleDependency"


def test_after_a_failure_wanted(view, failed):
    with view.temp_flags(after=ipp.Dependency([failed], success=False, failure=True)):
        assert view.apply_async(tasks.double, 1).get(60) == 2


def test_after_success_or_failure(view, failed, done):
    with view.temp_flags(after=ipp.Dependency([failed, done], success=True, failure=True)):
        assert view.apply_async(tasks.double, 1).get(60) == 2


def test_a_failure_wanted_of_a_success_is_impossible(view, done):
    with view.temp_flags(after=ipp.Dependency([done], success=False, failure=True)):
        assert error_of(view.apply_async(tasks.double, 1)) == "ImpossibleDependency"


def test_any_of_a_failure_and_a_success(view, failed, done):
    with view.temp_flags(after=ipp.Dependency([failed, done], all=False)):
        assert view.apply_async(tasks.double, 1).get(60) == 2


@pytest.mark.parametrize("option", ["after", "follow"])
def test_an_unknown_id_is_invalid(view, option):
    with view.temp_flags(**{option: ["never-submitted"]}):
        assert error_of(view.apply_async(tasks.double, 1)) == "InvalidDependency"


def test_a_direct_task_is_no_dependency(rc, view):
    direct = rc[0].apply_async(tasks.double, 1)
    direct.get(60)
    with view.temp_flags(after=[direct]):
        assert error_of(view.apply_async(tasks.double, 1)) == "InvalidDependency"


def test_a_task_that_waits_too_long_times_out(view, gate):
    held = view.apply_async(tasks.stay, gate.path)
    with view.temp_flags(after=[held], timeout=0.3):
        waiting = view.apply_async(tasks.double, 1)
    assert error_of(waiting) == "TaskTimeout"
    gate.open()
    held.get(60)


def test_a_timeout_does_not_touch_what_runs(view):
    with view.temp_flags(timeout=0.2):
        result = view.apply_async(tasks.nap, 1.0)
    assert result.get(60) == 1.0


def test_a_retry_that_no_engine_is_left_for_times_out(rc, view, tmp_path):
    log = tmp_path / "log"
    with view.temp_flags(retries=5, timeout=0.5):
        result = view.apply_async(tasks.note_and_fail, str(log), "tried")
    assert error_of(result) == "TaskTimeout"
    assert log.read_text().split() == ["tried"] * len(rc.ids)


def test_targets_that_are_used_up_are_impossible(view):
    with view.temp_flags(targets=[0], retries=5):
        assert error_of(view.apply_async(tasks.fail, "no")) == "ImpossibleDependency"


def test_a_functional_dependency_picks_the_engine(rc, view):
    pids = dict(zip(rc.ids, rc[:].apply_sync(tasks.pid)))
    for engine in rc.ids:
        function = ipp.depend(tasks.pid_is, pids[engine])(tasks.pid)
        results = [view.apply_async(function) for _ in range(5)]
        assert {result.get(60) for result in results} == {pids[engine]}


def test_a_functional_dependency_met_nowhere(view):
    function = ipp.depend(tasks.pid_is, -1)(tasks.pid)
    with view.temp_flags(targets=[0, 1]):
        assert error_of(view.apply_async(function)) == "ImpossibleDependency"
    with view.temp_flags(timeout=0.5):
        assert error_of(view.apply_async(function)) == "TaskTimeout"


def test_a_required_module(view):
    @ipp.require("json")
    @ipp.interactive  # its globals are the engine's namespace, where `require` puts the module
    def dump(value):
        return json.dumps(value)  # noqa: F821

    assert view.apply_async(dump, [1]).get(60) == "[1]"


def test_a_required_module_that_no_engine_has(view):
    never = ipp.require("no_such_module_anywhere")(tasks.pid)
    with view.temp_flags(targets=[0, 1]):
        assert error_of(view.apply_async(never)) == "ImpossibleDependency"


def test_queued_tasks_of_a_dead_target_fail(start_cluster, tmp_path):
    cluster = start_cluster(engines=2)
    rc = cluster.client()
    view = rc.load_balanced_view()
    pid = rc[0].apply_sync(tasks.pid)
    with view.temp_flags(targets=[0]):
        running = view.apply_async(tasks.stay, str(tmp_path / "never"))
        queued = view.apply_async(tasks.double, 1)
    wait_for(lambda: assigned(rc, [running]), "the task to be on engine 0")
    os.kill(pid, signal.SIGKILL)
    assert error_of(running) == "EngineError"
    assert error_of(queued) == "ImpossibleDependency"
