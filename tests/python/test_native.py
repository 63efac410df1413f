"""What only Remuda has: native engines beside stock ones, and answers where stock stays silent."""

from __future__ import annotations

import subprocess

import ipyparallel as ipp
import pytest
import tasks
from harness import DEADLINE, RawPeer, remuda_binary, wait_for


@pytest.fixture
def mixed(start_cluster):
    """Two stock and two native engines; (cluster, client, ids of the stock ones, ids of the native ones)."""
    cluster = start_cluster(engines=2)
    stock = sorted(cluster.engine_ids())
    for _ in range(2):
        cluster.start_native_engine()
    cluster.wait_for_engines(4)
    rc = cluster.client()
    return cluster, rc, stock, [number for number in rc.ids if number not in stock]


def remuda(cluster, *args):
    """Runs the program as a user of this cluster would; the process, with pipes."""
    command = [remuda_binary(), *args]
    return subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=cluster.env,
        cwd=cluster.work,
        text=True,
    )


@pytest.mark.remuda_only("stock never answers: the task hangs")
def test_an_unknown_direct_target_is_an_error(start_cluster):
    cluster = start_cluster()
    nobody = "11111111-222222222222333333333333"
    with RawPeer(cluster.connection()) as peer:
        header = peer.send("mux", "apply_request", ident=nobody.encode(), buffers=[b"\x80\x04N."])
        _, reply = peer.receive("mux")
    assert reply["msg_type"] == "apply_reply"
    assert reply["parent_header"]["msg_id"] == header["msg_id"]
    assert reply["content"]["status"] == "error"
    assert nobody in reply["content"]["evalue"]
    # Stock clients take an error without an engine as one that has no output to wait for.
    assert not reply["content"].get("engine_info")


@pytest.mark.remuda_only("stock never answers: the task hangs")
@pytest.mark.parametrize("metadata", [{"targets": 5}, {"after": [3]}, {"timeout": "soon"}])
def test_malformed_task_options_are_an_error(start_cluster, metadata):
    cluster = start_cluster()
    with RawPeer(cluster.connection()) as peer:
        header = peer.send("task", "apply_request", buffers=[b"\x80\x04N."], metadata=metadata)
        _, reply = peer.receive("task")
        assert reply["parent_header"]["msg_id"] == header["msg_id"]
        assert reply["content"]["status"] == "error"
        assert peer.query("queue_request", {"targets": None, "verbose": False})["content"]["unassigned"] == 0


@pytest.mark.remuda_only("needs native engines")
def test_each_task_of_a_mixed_cluster_lands_where_it_can_run(mixed):
    cluster, rc, stock, native = mixed
    assert len(stock) == len(native) == 2
    stock_pids = set(rc[stock].apply_sync(tasks.pid))
    words = [f"word-{number}" for number in range(50)]
    # Both at once: the functions start while the processes run.
    mapping = remuda(cluster, "map", "--profile-dir", cluster.profile_dir, "--", "echo", "{}", ":::", *words)
    try:
        results = rc.load_balanced_view().map_async(tasks.pid_and_double, range(200), chunksize=1).get(120)
        output, errors = mapping.communicate(timeout=DEADLINE * 2)
    finally:
        mapping.kill()
        mapping.wait()
    assert [number for _, number in results] == [2 * n for n in range(200)]
    assert {pid for pid, _ in results} == stock_pids
    assert mapping.returncode == 0, errors
    assert sorted(output.split()) == sorted(words)


@pytest.mark.remuda_only("needs native engines")
def test_a_failing_process_task_fails_the_map(mixed):
    cluster, *_ = mixed
    mapping = remuda(cluster, "map", "--profile-dir", cluster.profile_dir, "--", "sh", "-c", "exit {}", ":::", "0", "3")
    _, errors = mapping.communicate(timeout=DEADLINE)
    assert mapping.returncode == 1, errors


@pytest.mark.remuda_only("needs native engines")
def test_python_code_on_a_native_engine_is_a_readable_error(mixed):
    _, rc, _, native = mixed
    for call in (
        lambda view: view.execute("1 + 1", block=True),
        lambda view: view.apply_sync(tasks.double, 1),
    ):
        with pytest.raises(ipp.RemoteError) as caught:
            call(rc[native[0]])
        error = caught.value
        assert error.ename
        assert error.evalue
        assert str(native[0]) in str(error.engine_info["engine_id"])
        # What a notebook prints.
        assert error.evalue in "\n".join(error.render_traceback())


@pytest.mark.remuda_only("needs native engines")
def test_a_native_engine_obeys_control_requests(mixed):
    cluster, rc, stock, native = mixed
    rc.abort(["no-such-task"], targets=native, block=True)
    rc.clear(targets=native, block=True)
    rc.shutdown(targets=native, block=True)
    wait_for(lambda: rc.ids == stock, "the native engines to leave")
    for member in cluster.members:
        if member.name.startswith("native"):
            assert member.wait() == 0


@pytest.mark.remuda_only("needs native engines")
def test_functions_wait_for_a_stock_engine(start_cluster):
    cluster = start_cluster()
    cluster.start_native_engine()
    cluster.wait_for_engines(1)
    rc = cluster.client()
    result = rc.load_balanced_view().apply_async(tasks.double, 21)
    assert not result.wait(1), "a native engine cannot run it"
    cluster.start_engine()
    assert result.get(60) == 42
