"""Tasks on stock engines are stopped: since they run for too long, or since somebody asks. And priorities."""

from __future__ import annotations

import os
import subprocess
import time

import ipyparallel as ipp
import pytest
import tasks
from harness import REPOSITORY, remuda_binary, wait_for

pytestmark = pytest.mark.remuda_only("a stock controller stops nothing")


@pytest.fixture(scope="module")
def options():
    """Of the package, which need not be installed for it."""
    import importlib.util

    file = REPOSITORY / "python" / "src" / "remuda" / "_options.py"
    spec = importlib.util.spec_from_file_location("remuda_options", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.options


def loop_for_ever():
    while True:
        pass


def shrug_off_interrupts():
    while True:
        try:
            while True:
                pass
        except KeyboardInterrupt:
            pass


def engine_pid():
    return os.getpid()


def error_of(result, timeout=60):
    with pytest.raises(ipp.RemoteError) as caught:
        result.get(timeout)
    return caught.value


def test_an_endless_loop_ends_and_its_engine_does_the_next_task(start_cluster, options):
    cluster = start_cluster(engines=1)
    rc = cluster.client()
    view = rc.load_balanced_view()
    before = view.apply_sync(engine_pid)
    with options(view, run_timeout=1.5):
        endless = view.apply_async(loop_for_ever)
        harmless = view.apply_async(engine_pid)
    error = error_of(endless)
    assert error.ename == "RunTimeout" and "KeyboardInterrupt" in error.evalue, error
    assert harmless.get(60) == before, "the engine lives on"
    assert view.apply_sync(engine_pid) == before


def test_options_end_with_their_block_and_wrong_ones_are_named(start_cluster, options):
    cluster = start_cluster(engines=1)
    view = cluster.client().load_balanced_view()
    with options(view, run_timeout=0.5):
        pass
    assert view.apply_async(time.sleep, 1.5).get(60) is None
    with pytest.raises(TypeError, match="run_timout"):
        with options(view, run_timout=3):
            pass
    with options(view, priority="high"):
        assert "priority" in error_of(view.apply_async(engine_pid)).evalue


def test_what_does_not_heed_an_interrupt_ends_with_its_engine(start_cluster, options):
    cluster = start_cluster(engines=2)
    rc = cluster.client()
    view = rc.load_balanced_view()
    with options(view, run_timeout=1):
        stubborn = view.apply_async(shrug_off_interrupts)
    assert error_of(stubborn).ename == "RunTimeout"
    wait_for(lambda: len(rc.ids) == 1, "the engine to be gone")
    assert view.apply_sync(engine_pid)


def test_a_task_that_runs_is_stopped_by_its_id(start_cluster, gate):
    cluster = start_cluster(engines=1)
    view = cluster.client().load_balanced_view()
    endless = view.apply_async(loop_for_ever)
    (task,) = endless.msg_ids
    command = [remuda_binary(), "task", "stop", task, "--profile-dir", cluster.profile_dir]
    wait_for(lambda: cluster.client().queue_status()["unassigned"] == 0, "the task to be with an engine")
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    error = error_of(endless)
    assert error.ename == "TaskStopped", error
    assert view.apply_sync(engine_pid)


def test_a_higher_priority_comes_first(start_cluster, gate, tmp_path, options):
    cluster = start_cluster(engines=1)
    view = cluster.client().load_balanced_view()
    log = str(tmp_path / "log")

    def note(text, log):
        with open(log, "a") as file:
            file.write(text)

    results = [view.apply_async(tasks.stay, gate.path)]
    for text, priority in [("a", 0), ("b", -1), ("c", 5), ("d", 0), ("e", 5)]:
        with options(view, priority=priority):
            results.append(view.apply_async(note, text, log))
    gate.open()
    for result in results:
        result.get(60)
    assert open(log).read() == "ceadb"
