"""Direct views: one engine, or all of them, by name."""

from __future__ import annotations

import os
import signal

import ipyparallel as ipp
import numpy
import pytest
import tasks
from harness import wait_for


@pytest.fixture
def view(rc):
    view = rc[:]
    view.block = True
    yield view
    rc.clear(block=True)


def test_execute(view):
    view.execute("a = 6 * 7")
    assert view["a"] == [42, 42]


def test_push_and_pull(view):
    value = {"text": "héllo", "list": [1, None, 2.5]}
    view.push({"value": value, "number": 3})
    assert view.pull(["value", "number"]) == [[value, 3]] * 2


def test_scatter_and_gather(view):
    view.scatter("part", list(range(11)))
    sizes = view.pull("part")
    assert sorted(map(len, sizes)) == [5, 6]
    assert view.gather("part") == list(range(11))


def test_arrays_and_large_buffers(view):
    array = numpy.arange(300_000, dtype="float64").reshape(300, 1000)
    view.push({"array": array})
    for returned in view.pull("array"):
        assert (returned == array).all()
    blob = bytes(range(256)) * 4096
    assert view.apply(len, blob) == [len(blob)] * 2


def test_apply_with_keywords(view):
    assert view.apply(tasks.divide, b=4, a=2) == [0.5, 0.5]


def test_map_keeps_the_order(view):
    assert view.map(tasks.double, range(100)) == [2 * n for n in range(100)]


def test_output_of_engines_comes_with_the_result(hearing):
    result = hearing[:].apply_async(tasks.speak, "hi there")
    assert result.get(60) == ["hi there"] * 2
    assert result.wait_for_output(60)
    assert result.stdout == ["hi there\n"] * 2
    assert result.stderr == ["HI THERE\n"] * 2


def test_output_of_executed_code(hearing):
    result = hearing[0].execute("print('one'); 1 + 1", silent=False, block=False)
    result.get(60)
    assert result.wait_for_output(60)
    assert result.stdout == "one\n"
    assert result.execute_result["data"]["text/plain"] == "2"


def test_metadata_of_a_result(rc):
    result = rc[1].apply_async(tasks.double, 1)
    result.get(60)
    assert result.engine_id == 1
    assert result.metadata.status == "ok"
    assert result.submitted <= result.started <= result.completed <= result.received


def test_an_error_names_itself(rc):
    with pytest.raises(ipp.RemoteError) as caught:
        rc[0].apply_sync(tasks.divide, 1, 0)
    error = caught.value
    assert error.ename == "ZeroDivisionError"
    assert error.evalue == "division by zero"
    assert "divide" in error.traceback
    assert error.engine_info["engine_id"] == 0
    assert error.engine_info["method"] == "apply"


def test_errors_of_several_engines_come_together(rc):
    with pytest.raises(ipp.CompositeError) as caught:
        rc[:].apply_sync(tasks.fail, "no")
    assert [element[0] for element in caught.value.elist] == ["ValueError"] * 2


def test_an_error_in_executed_code(rc):
    with pytest.raises(ipp.RemoteError) as caught:
        rc[0].execute("undefined_name", block=True)
    assert caught.value.ename == "NameError"


def test_abort_of_what_has_not_started(rc, gate):
    view = rc[0]
    running = view.apply_async(tasks.stay, gate.path)
    waiting = [view.apply_async(tasks.double, n) for n in range(3)]
    rc.abort(waiting[:2], block=True)
    gate.open()
    assert running.get(60)
    for result in waiting[:2]:
        with pytest.raises(ipp.TaskAborted):
            result.get(60)
    assert waiting[2].get(60) == 4


def test_clear_empties_the_namespace(rc):
    rc[:].push({"a": 1}, block=True)
    rc.clear(targets=[0], block=True)
    with pytest.raises(ipp.RemoteError) as caught:
        rc[0].pull("a", block=True)
    assert caught.value.ename == "NameError"
    assert rc[1].pull("a", block=True) == 1


def test_a_signal_interrupts_a_task(rc, tmp_path):
    started = tmp_path / "started"
    code = f"import time\nopen({str(started)!r}, 'w').close()\ntime.sleep(600)"
    result = rc[0].execute(code, block=False)
    wait_for(started.exists, "the task to start")
    rc.send_signal("SIGINT", targets=[0], block=True)
    with pytest.raises(ipp.RemoteError) as caught:
        result.get(60)
    assert caught.value.ename == "KeyboardInterrupt"
    assert rc[0].apply_sync(tasks.double, 2) == 4


@pytest.mark.parametrize("coalescing", [False, True])
def test_broadcast(rc, coalescing):
    view = rc.broadcast_view(is_coalescing=coalescing)
    result = view.apply_async(tasks.pid)
    assert sorted(result.get(60)) == sorted(rc[:].apply_sync(tasks.pid))


def test_a_task_of_a_killed_engine_fails_on_a_direct_view(start_cluster, tmp_path):
    cluster = start_cluster(engines=2)
    rc = cluster.client()
    pid = rc[0].apply_sync(tasks.pid)
    lost = rc[0].apply_async(tasks.stay, str(tmp_path / "never"))
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ipp.RemoteError) as caught:
        lost.get(60)
    assert caught.value.ename == "EngineError"
    assert rc[1].apply_sync(tasks.double, 2) == 4
