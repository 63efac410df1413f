"""The other doors of the client: executors, magics, asyncio, streams of tasks, large arrays, and `Cluster` itself."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import os
import signal

import ipyparallel as ipp
import numpy
import pytest
import tasks
from harness import DEADLINE, MARK, remuda_binary, wait_for
from traitlets.config import Config

# -- executors


def test_an_executor_runs_what_it_is_given(rc):
    with rc.executor() as executor:
        futures = [executor.submit(tasks.double, number) for number in range(20)]
        done = {future.result() for future in concurrent.futures.as_completed(futures, timeout=DEADLINE)}
        assert done == {2 * number for number in range(20)}
        assert list(executor.map(tasks.divide, [8, 6], [2, 3])) == [4, 2]
        failed = executor.submit(tasks.fail, "in the executor")
        with pytest.raises(ipp.RemoteError, match="in the executor"):
            failed.result(DEADLINE)


def test_an_executor_of_one_engine_stays_there(rc):
    own = rc[1].apply_sync(tasks.pid)
    with rc.executor(targets=[1]) as executor:
        assert set(executor.map(tasks.pid, range(10))) == {own}


def test_results_can_be_awaited(rc):
    async def both():
        direct = asyncio.wrap_future(rc[:].apply_async(tasks.double, 1))
        balanced = asyncio.wrap_future(rc.load_balanced_view().apply_async(tasks.double, 2))
        return await asyncio.wait_for(asyncio.gather(direct, balanced), DEADLINE)

    assert asyncio.run(both()) == [[2, 2], 4]


# -- streams of tasks


def test_a_map_takes_a_generator(rc):
    view = rc.load_balanced_view()
    assert view.map_sync(tasks.double, (number for number in range(25))) == [2 * number for number in range(25)]
    assert rc[:].map_sync(tasks.double, iter(range(9))) == [2 * number for number in range(9)]


def test_an_endless_generator_is_taken_as_results_are_wanted(rc):
    taken = []

    def numbers():
        for number in itertools.count():
            taken.append(number)
            yield number

    results = rc.load_balanced_view().imap(tasks.double, numbers(), max_outstanding=4)
    assert list(itertools.islice(results, 20)) == [2 * number for number in range(20)]
    results.cancel()
    assert len(taken) < 60


def test_results_come_as_they_are_done_when_order_does_not_matter(rc, gate):
    view = rc.load_balanced_view()
    results = view.map_async(tasks.stay_unless, [gate.path] + [""] * 5, ordered=False, chunksize=1)
    stream = iter(results)
    first = [next(stream) for _ in range(5)]
    assert first == [""] * 5, "none of them waited for the first task"
    gate.open()
    assert list(stream) == [gate.path]


def test_progress_counts_what_is_done(rc, gate):
    results = rc.load_balanced_view(targets=[0]).map_async(
        tasks.stay_unless, ["", "", gate.path, ""], ordered=False, chunksize=1
    )
    wait_for(lambda: results.progress == 2, "two tasks to be done")
    assert len(results) == 4
    assert not results.ready()
    gate.open()
    results.wait_interactive(interval=0.05, timeout=DEADLINE)
    assert results.progress == 4
    assert results.successful()
    assert results.serial_time > 0
    assert results.wall_time > 0
    assert [data["status"] for data in results.metadata] == ["ok"] * 4


# -- data


def test_large_arrays_come_back_as_they_went(rc):
    # More than 32 MB in one buffer.
    array = numpy.arange(5_000_000, dtype=numpy.float64).reshape(1000, 5000)
    view = rc[:]
    view.push({"array": array}, block=True)
    assert view.apply_sync(tasks.total, ipp.Reference("array")) == [array.sum()] * 2
    assert numpy.array_equal(rc[1].pull("array", block=True), array)
    view.scatter("rows", array, block=True)
    assert numpy.array_equal(view.gather("rows", block=True), array)
    assert numpy.array_equal(rc.load_balanced_view().apply_sync(tasks.same, array), array)
    assert [numpy.array_equal(got, array) for got in rc.broadcast_view().apply_sync(tasks.same, array)] == [True, True]


def test_structured_and_empty_arrays_come_back_too(rc):
    records = numpy.array([(1, 2.5), (3, 4.5)], dtype=[("a", "i4"), ("b", "f8")])
    for array in (records, numpy.zeros((0, 3)), numpy.array(7), records[::-1]):
        got = rc[0].apply_sync(tasks.same, array)
        assert got.dtype == array.dtype
        assert numpy.array_equal(got, array)


# -- in IPython


@pytest.fixture
def shell(rc):
    """IPython with the client's magics in it."""
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    shell.user_ns["rc"] = rc
    rc.activate()
    yield shell
    InteractiveShell.clear_instance()


def test_px_runs_on_every_engine_and_shows_what_it_printed(rc, shell, capsys):
    shell.run_line_magic("px", "import os; where = os.getpid(); print('from', where)")
    printed = capsys.readouterr().out
    for pid in rc[:].apply_sync(tasks.pid):
        assert f"from {pid}" in printed
    shell.run_cell_magic("px", "--targets 1 --noblock", "where = 'changed'")
    shell.run_line_magic("pxresult", "")
    assert rc[1].pull("where", block=True) == "changed"
    assert rc[0].pull("where", block=True) != "changed"


def test_px_raises_what_the_engines_raised(shell):
    shell.run_line_magic("px", "good = 1")
    result = shell.run_cell("%px 1 / 0")
    assert isinstance(result.error_in_exec, ipp.error.CompositeError)
    assert "ZeroDivisionError" in str(result.error_in_exec)


def test_autopx_sends_every_line(rc, shell):
    shell.run_line_magic("autopx", "")
    try:
        shell.run_cell("sent = 6 * 7")
    finally:
        shell.run_line_magic("autopx", "")
    assert rc[:].pull("sent", block=True) == [42, 42]
    assert "sent" not in shell.user_ns


# -- Cluster


@pytest.fixture
def cluster(kind, tmp_path, monkeypatch):
    """`ipyparallel.Cluster` with the controller under test, two engines and a client; (cluster, client)."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(tasks.__file__))
    monkeypatch.setenv(MARK, str(tmp_path))
    config = Config()
    if kind == "remuda":
        config.LocalControllerLauncher.controller_cmd = [str(remuda_binary()), "controller"]
    cluster = ipp.Cluster(n=2, config=config)
    client = cluster.start_and_connect_sync()
    yield cluster, client
    client.close()
    cluster.stop_cluster_sync()
    assert not list((tmp_path / "ipython").rglob("security/*.json"))


def test_engines_are_restarted_and_the_client_goes_on(cluster):
    cluster, client = cluster
    before = set(client[:].apply_sync(tasks.pid))
    cluster.restart_engines_sync()
    client.wait_for_engines(2, timeout=DEADLINE)
    wait_for(lambda: client.ids == [2, 3], "the client to see the new engines alone")
    after = set(client[:].apply_sync(tasks.pid))
    assert not before & after
    assert client.load_balanced_view().map_sync(tasks.double, range(6)) == [2 * number for number in range(6)]


def test_an_interrupt_ends_what_runs_and_nothing_else(cluster, gate):
    cluster, client = cluster
    pids = client[:].apply_sync(tasks.pid)
    # By the launcher's signal to the processes, then by the client's through the controller.
    for interrupt in (
        lambda: cluster.signal_engines_sync(signal.SIGINT),
        lambda: client.send_signal(signal.SIGINT, block=True),
    ):
        noted = gate.file.parent / f"noted{interrupt.__code__.co_firstlineno}"
        running = client[:].apply_async(tasks.note_and_stay, str(noted), gate.path)
        wait_for(lambda noted=noted: noted.exists() and len(noted.read_text().split()) == 2, "both tasks to begin")
        interrupt()
        with pytest.raises(ipp.error.CompositeError, match="KeyboardInterrupt"):
            running.get(DEADLINE)
    assert client[:].apply_sync(tasks.pid) == pids


def test_a_second_set_of_engines_joins_and_leaves(cluster):
    cluster, client = cluster
    more = cluster.start_engines_sync(1)
    client.wait_for_engines(3, timeout=DEADLINE)
    assert client.ids == [0, 1, 2]
    cluster.stop_engines_sync(more)
    wait_for(lambda: client.ids == [0, 1], "the third engine to go")
    assert client[:].apply_sync(tasks.double, 2) == [4, 4]


def test_waiting_for_engines_that_do_not_come_times_out(cluster):
    _, client = cluster
    with pytest.raises(TimeoutError):
        client.wait_for_engines(3, timeout=0.3)


@pytest.mark.remuda_only("stock becomes a dask cluster, where dask is installed")
def test_becoming_a_dask_cluster_is_refused_with_a_reason(rc):
    reply = rc._send_recv(rc._query_stream, "become_dask_request", {"scheduler_args": {}})
    assert reply["content"]["ename"] == "NotImplementedError"
    assert "become_dask_request" in reply["content"]["evalue"]
