"""`remuda.Client`: what ipyparallel's own client is to its users, by its Rust core and by ipyparallel's own way."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import signal
import subprocess
import sys
import threading
import time

import ipyparallel
import pytest
from harness import DEADLINE, wait_for

pytestmark = pytest.mark.remuda_only("the client is tested, not the controller")


@pytest.fixture(params=["accelerated", "stock way"])
def client(request, shared, package):
    accelerated = request.param == "accelerated"
    with package.Client(str(shared.file("client")), accelerated=accelerated, timeout=DEADLINE) as client:
        assert client.accelerated is accelerated
        client.wait_for_engines(2, timeout=DEADLINE)
        yield client


@pytest.fixture
def fast(shared, package):
    with package.Client(str(shared.file("client")), accelerated=True, timeout=DEADLINE) as client:
        client.wait_for_engines(2, timeout=DEADLINE)
        yield client


def slow(value):
    import time

    time.sleep(0.05)
    return value


def fail(value):
    raise ValueError(value)


def test_it_is_one_of_ipyparallels(client):
    view = client.load_balanced_view()
    assert isinstance(client, ipyparallel.Client) and isinstance(view, ipyparallel.client.view.LoadBalancedView)
    result = view.apply_async(abs, -3)
    assert isinstance(result, ipyparallel.AsyncResult) and isinstance(result, concurrent.futures.Future)
    assert (result.get(), result.get(), result.result(), result.exception()) == (3, 3, 3, None)
    assert result.ready() and result.done() and result.successful()
    assert client.history[-1] == result.msg_ids[0] == view.history[-1]
    assert result.msg_ids[0] not in client.outstanding


def test_views_do_what_they_do(client):
    direct, balanced = client[:], client.load_balanced_view()
    assert sorted(direct.apply_sync(os.getpid)) == sorted(set(direct.apply_sync(os.getpid)))
    direct.push({"a": 5, "b": [1, 2]}, block=True)
    assert direct.pull(("a", "b"), block=True) == [[5, [1, 2]]] * 2
    direct.scatter("c", list(range(10)), block=True)
    assert direct.gather("c", block=True) == list(range(10))
    assert balanced.map_sync(lambda x: x * x, range(20)) == [x * x for x in range(20)]
    assert balanced.map_sync(lambda x, y: x + y, range(7), range(7), chunksize=3) == [2 * x for x in range(7)]
    assert direct.map_sync(lambda x: x + 1, range(5)) == list(range(1, 6))
    for coalesce in (False, True):
        broadcast = client.broadcast_view(is_coalescing=coalesce)
        assert broadcast.apply_sync(lambda: 7) == [7, 7]


def test_errors_name_what_failed_and_where(client):
    balanced = client.load_balanced_view()
    with pytest.raises(ipyparallel.RemoteError, match="ValueError.*three") as caught:
        balanced.apply_sync(fail, "three")
    assert caught.value.engine_info["engine_id"] in client.ids
    result = balanced.map_async(lambda x: 1 // x, [1, 0, 1])
    with pytest.raises(ipyparallel.RemoteError, match="ZeroDivision"):
        result.get()
    values = balanced.map_async(lambda x: 1 // x, [1, 0, 1], return_exceptions=True).get()
    assert values[0] == values[2] == 1 and isinstance(values[1], ipyparallel.RemoteError)
    with pytest.raises(ipyparallel.CompositeError):
        client[:].apply_sync(fail, 1)
    with pytest.raises(TypeError, match="callable"):
        balanced.apply_async(3)


def test_what_a_task_says_of_itself_is_known(client):
    result = client[0].execute("print('said'); 6 * 7", silent=False, block=False)
    result.get(DEADLINE)
    assert result.wait_for_output(DEADLINE)
    assert result.stdout == "said\n" and result.execute_result["data"]["text/plain"] == "42"
    result = client.load_balanced_view().apply_async(time.sleep, 0.01)
    result.get(DEADLINE)
    metadata = result.metadata
    assert metadata["submitted"] <= metadata["received"] and metadata["started"] <= metadata["completed"]
    assert metadata["engine_id"] in client.ids and metadata["status"] == "ok"
    assert result.serial_time >= 0.01 and result.wall_time > 0 and result.engine_id == metadata["engine_id"]


def test_futures_are_futures(client):
    balanced = client.load_balanced_view()
    results = [balanced.apply_async(lambda x: x, number) for number in range(10)]
    done, pending = concurrent.futures.wait(results, timeout=DEADLINE)
    assert len(done) == 10 and not pending
    called = threading.Event()
    balanced.apply_async(abs, 1).add_done_callback(lambda _: called.set())
    assert called.wait(DEADLINE)

    async def gathered():
        return await asyncio.gather(*(asyncio.wrap_future(balanced.apply_async(abs, -x)) for x in range(5)))

    assert asyncio.run(gathered()) == list(range(5))
    with client.executor() as executor:
        assert list(executor.map(abs, range(-5, 0))) == [5, 4, 3, 2, 1]
        assert executor.submit(abs, -9).result(DEADLINE) == 9


def test_maps_come_as_they_end(client):
    balanced = client.load_balanced_view()
    assert list(balanced.imap(lambda x: x + 1, range(30))) == list(range(1, 31))
    assert sorted(balanced.imap(lambda x: x, range(30), ordered=False, max_outstanding=4)) == list(range(30))
    assert sorted(balanced.map_async(lambda x: x, range(50), ordered=False)) == list(range(50))

    def endless():
        number = 0
        while True:
            yield number
            number += 1

    lazy = balanced.imap(lambda x: x, endless(), max_outstanding=2)
    assert [next(lazy) for _ in range(5)] == list(range(5))
    lazy.cancel()


def test_arrays_go_and_come_whole(client):
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(300_000, dtype="f8").reshape(300, 1000)
    balanced = client.load_balanced_view()
    back = balanced.apply_sync(lambda x: x * 2, array)
    assert (back == array * 2).all() and back.shape == array.shape
    result = client[:].apply_async(lambda x: x.sum(), array)
    assert result.get(DEADLINE) == [array.sum()] * 2
    view = client[0]
    view.track = True
    result = view.apply_async(len, os.urandom(1 << 20))
    result.wait_for_send(DEADLINE)
    assert result.sent and result.get() == 1 << 20


def test_the_hub_is_asked_as_ever(client):
    result = client.load_balanced_view().apply_async(abs, -1)
    result.get()
    assert wait_for(lambda: result.msg_ids[0] in client.hub_history(), "the task on record")
    again = client.get_result(result.msg_ids[0])
    assert again.get(DEADLINE) == 1
    assert client.queue_status()["unassigned"] == 0
    client.clear(block=True)


def test_options_and_native_functions_are_for_this_client_too(client, package):
    balanced = client.load_balanced_view()
    with package.options(balanced, run_timeout=0.2, fail_unplaceable=True):
        with pytest.raises(ipyparallel.RemoteError, match="RunTimeout|NotPlaceable|Unplaceable|interrupted"):
            balanced.apply_sync(time.sleep, 30)
    with pytest.raises(TypeError, match="a view"):
        package.function("nothing")(1)


def test_an_interrupt_ends_the_wait_and_nothing_else(client):
    balanced = client.load_balanced_view()
    result = balanced.apply_async(time.sleep, 1)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            result.get(DEADLINE)
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.get(DEADLINE) is None


def test_many_threads_share_a_client(client):
    balanced = client.load_balanced_view()
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        values = list(pool.map(lambda x: balanced.apply_async(abs, -x).get(DEADLINE), range(200)))
    assert values == list(range(200))


def test_what_is_dropped_takes_no_memory(fast):
    balanced = fast.load_balanced_view()
    for _ in range(3):
        results = [balanced.apply_async(bytes, 1000) for _ in range(500)]
        fast.wait(results, DEADLINE)
        del results
    gc.collect()
    assert not fast._watched and len(fast._live) == 0 and not fast.outstanding


def test_a_forked_child_is_told(fast):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            fast.load_balanced_view().apply_async(abs, 1)
            os.write(writer, b"it went through")
        except RuntimeError as failure:
            os.write(writer, str(failure).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    assert b"make a Client here" in said
    assert fast.load_balanced_view().apply_sync(abs, -1) == 1


def test_a_closed_client_says_so_and_keeps_nobody_waiting(client):
    result = client.load_balanced_view().apply_async(time.sleep, 0.5)
    client.close()
    with pytest.raises(RuntimeError, match="closed" if client.accelerated else "disabled"):
        client.load_balanced_view().apply_async(abs, 1)
    if client.accelerated:
        with pytest.raises(ipyparallel.RemoteError, match="the client was closed"):
            result.get(DEADLINE)


def test_nobody_is_waited_for_in_vain(package, tmp_path, shared):
    connection = shared.connection()
    for channel in ("registration", "control", "mux", "task", "iopub", "notification", "broadcast"):
        connection[channel] = 1
    with pytest.raises(TimeoutError, match="nothing answered at tcp://"):
        package.Client(connection, accelerated=True, timeout=0.5)


def test_importing_the_package_does_not_import_ipyparallel(package):
    code = "import sys, remuda; sys.exit('ipyparallel' in sys.modules)"
    folder = os.path.dirname(os.path.dirname(package.__file__))
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": folder}).returncode == 0


def test_a_program_that_just_ends_ends(package, shared):
    code = (
        "import remuda, time, sys\n"
        "client = remuda.Client(sys.argv[1], accelerated=True)\n"
        "client.wait_for_engines(2, timeout=60)\n"
        "result = client.load_balanced_view().apply_async(time.sleep, 5)\n"
        "result.add_done_callback(print)\n"
        "print('ended')\n"
    )
    folder = os.path.dirname(os.path.dirname(package.__file__))
    run = subprocess.run(
        [sys.executable, "-c", code, str(shared.file("client"))],
        env={**os.environ, "PYTHONPATH": folder},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert run.returncode == 0 and run.stdout.startswith("ended\n"), (run.stdout, run.stderr)


def test_tasks_survive_a_controller_that_is_killed(package, start_cluster):
    options = ["--sqlitedb", "--durability=sync"]
    cluster = start_cluster(*options, engines=2)
    with package.Client(str(cluster.file("client")), accelerated=True, timeout=DEADLINE) as client:
        client.wait_for_engines(2, timeout=DEADLINE)
        balanced = client.load_balanced_view()
        results = [balanced.apply_async(slow, number) for number in range(60)]
        wait_for(results[5].done, "the first results")
        cluster.controller.signal(9)
        cluster.controller.wait()
        cluster.start_controller(*options)
        values = [result.get(DEADLINE) for result in results]
        assert values == list(range(60))
