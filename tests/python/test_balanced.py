"""Load-balanced views: the controller picks the engine."""

from __future__ import annotations

import os
import signal

import ipyparallel as ipp
import pytest
import tasks
from harness import assigned, wait_for


def test_a_map_keeps_the_order(rc):
    view = rc.load_balanced_view()
    assert view.map_sync(tasks.double, range(200)) == [2 * n for n in range(200)]


def test_an_unordered_map_has_every_result_once(rc):
    view = rc.load_balanced_view()
    results = view.map_async(tasks.double, range(200), ordered=False)
    assert sorted(results) == [2 * n for n in range(200)]


def test_every_engine_gets_work(rc, gate):
    view = rc.load_balanced_view()
    # Both stay until the file comes, which is when both are known to run.
    results = [view.apply_async(tasks.stay, gate.path) for _ in range(2)]
    wait_for(lambda: assigned(rc, results) == {0, 1}, "a task on each engine")
    gate.open()
    assert len({result.get(60) for result in results}) == 2


def test_a_failing_task_fails_its_own_call_only(rc):
    view = rc.load_balanced_view()
    results = view.map_async(tasks.divide, [1, 2, 3], [1, 0, 2], chunksize=1, return_exceptions=True).get(60)
    assert results[0] == 1.0
    assert results[2] == 1.5
    assert results[1].ename == "ZeroDivisionError"


def test_output_of_a_balanced_task(hearing):
    result = hearing.load_balanced_view().apply_async(tasks.speak, "ho")
    result.get(60)
    assert result.wait_for_output(60)
    assert result.stdout == "ho\n"


def test_targets_restrict_the_choice(rc):
    pids = dict(zip(rc.ids, rc[:].apply_sync(tasks.pid)))
    for engine in rc.ids:
        view = rc.load_balanced_view(targets=[engine])
        results = [view.apply_async(tasks.pid) for _ in range(10)]
        assert {result.get(60) for result in results} == {pids[engine]}


def test_retries_go_to_another_engine(rc, tmp_path):
    log = tmp_path / "log"
    view = rc.load_balanced_view()
    with view.temp_flags(retries=1):
        result = view.apply_async(tasks.note_and_fail, str(log), "tried")
    with pytest.raises(ipp.RemoteError) as caught:
        result.get(60)
    assert caught.value.ename == "ValueError"
    assert log.read_text() == "tried\ntried\n"


def test_a_retry_that_succeeds_is_the_result(rc):
    pids = dict(zip(rc.ids, rc[:].apply_sync(tasks.pid)))
    view = rc.load_balanced_view()

    with view.temp_flags(retries=1):
        results = [view.apply_async(tasks.only_on, pids[1]) for _ in range(6)]
    assert [result.get(60) for result in results] == [pids[1]] * 6


def test_abort_of_queued_tasks(rc, gate):
    view = rc.load_balanced_view()
    running = [view.apply_async(tasks.stay, gate.path) for _ in range(2)]
    waiting = [view.apply_async(tasks.double, n) for n in range(4)]
    wait_for(lambda: assigned(rc, running), "a task on each engine")
    rc.abort(waiting, block=True)
    gate.open()
    for result in running:
        result.get(60)
    for result in waiting:
        with pytest.raises(ipp.TaskAborted):
            result.get(60)


def test_tasks_submitted_before_any_engine_wait_for_one(start_cluster):
    cluster = start_cluster()
    rc = cluster.client()
    view = rc.load_balanced_view()
    # The stock client refuses to submit without engines; the controller must cope with engines that leave.
    engine = cluster.start_engine()
    wait_for(lambda: rc.ids == [0], "the engine")
    results = [view.apply_async(tasks.double, n) for n in range(20)]
    assert [result.get(60) for result in results] == [2 * n for n in range(20)]
    rc.shutdown(targets=[0], block=True)
    engine.wait()


@pytest.mark.deadline(300)
def test_five_thousand_small_tasks(start_cluster):
    cluster = start_cluster(engines=4)
    view = cluster.client().load_balanced_view()
    results = view.map_async(tasks.pid_and_double, range(5000), chunksize=1).get(240)
    assert [number for _, number in results] == [2 * n for n in range(5000)]
    assert len({pid for pid, _ in results}) == 4, "all engines took part"


@pytest.mark.deadline(360)
@pytest.mark.parametrize("retries", [0, 2])
def test_five_thousand_small_tasks_and_one_engine_killed(start_cluster, tmp_path, retries):
    cluster = start_cluster(engines=4)
    rc = cluster.client()
    view = rc.load_balanced_view()
    held_number, held_file = 1000, tmp_path / "held"
    with view.temp_flags(retries=retries):
        results = view.map_async(
            tasks.double_or_hold,
            range(5000),
            [held_number] * 5000,
            [str(held_file)] * 5000,
            chunksize=1,
            return_exceptions=True,
        )
    # The engine that holds this task can only lose it: what is killed is sure to have been running something.
    wait_for(lambda: held_file.exists() and held_file.read_text().endswith("\n"), "the task to be held", 240)
    os.kill(int(held_file.read_text()), signal.SIGKILL)
    results = results.get(240)
    assert len(results) == 5000
    lost = {n for n, result in enumerate(results) if isinstance(result, Exception)}
    assert all(result == 2 * n for n, result in enumerate(results) if n not in lost)
    if retries:
        assert not lost
    else:
        assert held_number in lost
        # No more than the engine may have held at once: hwm is 1.
        assert len(lost) == 1
        assert {results[n].ename for n in lost} == {"EngineError"}
    wait_for(lambda: len(rc.ids) == 3, "the client to know of three engines")
    assert view.map_sync(tasks.double, range(30)) == [2 * n for n in range(30)]


@pytest.mark.parametrize("scheme", ["leastload", "lru", "plainrandom", "twobin", "weighted", "pure"])
def test_schemes(start_cluster, scheme):
    cluster = start_cluster(f"--scheme={scheme}", engines=2)
    assert cluster.connection("client")["task_scheme"] == scheme
    view = cluster.client().load_balanced_view()
    results = view.map_async(tasks.pid_and_double, range(200), chunksize=1).get(120)
    assert [number for _, number in results] == [2 * n for n in range(200)]
    assert len({pid for pid, _ in results}) == 2


@pytest.mark.parametrize("hwm", [0, 7])
def test_high_water_marks(start_cluster, hwm):
    cluster = start_cluster(f"--hwm={hwm}", engines=2)
    view = cluster.client().load_balanced_view()
    results = view.map_async(tasks.double, range(500), chunksize=1).get(120)
    assert results == [2 * n for n in range(500)]
