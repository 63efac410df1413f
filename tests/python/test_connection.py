"""Connecting, connection files, and the end of a cluster."""

from __future__ import annotations

import json
import os
import signal
import stat

import ipyparallel as ipp
import pytest
import tasks
from harness import RawPeer, wait_for


def test_a_client_sees_the_engines(rc):
    assert rc.ids == [0, 1]
    assert rc[:].apply_sync(tasks.double, 21) == [42, 42]


def test_a_client_without_engines_connects_and_sees_them_come_and_go(start_cluster):
    cluster = start_cluster()
    rc = cluster.client()
    assert rc.ids == []
    cluster.start_engines(1)
    wait_for(lambda: rc.ids == [0], "the client to hear of the engine")
    engine_pid = rc[0].apply_sync(tasks.pid)
    os.kill(engine_pid, signal.SIGKILL)
    wait_for(lambda: rc.ids == [], "the client to hear that the engine is gone")
    cluster.start_engines(1)
    wait_for(lambda: rc.ids == [1], "an engine with a new id")


def test_connection_files_are_for_the_owner_only_and_agree(shared):
    client, engine = shared.connection("client"), shared.connection("engine")
    for role in ("client", "engine"):
        assert stat.S_IMODE(shared.file(role).stat().st_mode) == 0o600
    for key in ("registration", "key", "pack", "unpack", "signature_scheme", "interface"):
        assert client[key] == engine[key]
    assert client["key"]
    assert isinstance(client["broadcast"], int)
    assert isinstance(engine["broadcast"], list)


def test_files_are_removed_when_the_controller_ends(start_cluster):
    cluster = start_cluster()
    cluster.controller.signal(signal.SIGTERM)
    assert cluster.controller.wait(10) == 0
    assert not cluster.file("client").exists()
    assert not cluster.file("engine").exists()


@pytest.mark.remuda_only("stock writes its files before it handles signals")
def test_a_controller_whose_files_are_there_ends_cleanly(start_cluster):
    cluster = start_cluster(answering=False)
    cluster.controller.signal(signal.SIGTERM)
    assert cluster.controller.wait(10) == 0
    assert not cluster.file("client").exists()


def test_without_a_file_the_client_says_so(start_cluster):
    cluster = start_cluster()
    cluster.file("client").unlink()
    with pytest.raises(OSError, match=r"ipcontroller-client\.json"):
        ipp.Client(profile_dir=str(cluster.profile_dir), timeout=1)


def test_a_stale_file_is_a_timeout(start_cluster, tmp_path):
    cluster = start_cluster()
    stale = tmp_path / "stale.json"
    stale.write_text(cluster.file("client").read_text())
    cluster.controller.signal(signal.SIGTERM)
    cluster.controller.wait()
    with pytest.raises(TimeoutError, match="timed out"):
        ipp.Client(str(stale), timeout=1)


def test_a_wrong_key_gets_no_answer_and_does_no_harm(shared, tmp_path, rc):
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps({**shared.connection(), "key": "not-the-key"}))
    with pytest.raises(TimeoutError, match="timed out"):
        ipp.Client(str(wrong), timeout=1)
    assert rc[:].apply_sync(tasks.double, 4) == [8, 8]


def test_reused_files_bring_clients_back(start_cluster, tmp_path):
    cluster = start_cluster("--reuse")
    before = cluster.connection("client")
    cluster.controller.signal(signal.SIGTERM)
    assert cluster.controller.wait(10) == 0
    assert cluster.connection("client") == before, "reused files stay"
    cluster.start_controller("--reuse")
    assert cluster.connection("client") == before
    cluster.start_engines(1)
    assert cluster.client()[0].apply_sync(tasks.double, 3) == 6


def test_a_file_left_by_a_killed_controller_does_not_mislead(start_cluster):
    cluster = start_cluster()
    before = cluster.connection("client")
    cluster.controller.kill_group()
    assert cluster.file("client").exists()
    cluster.controller = None
    cluster.file("client").unlink()
    cluster.file("engine").unlink()
    cluster.start_controller()
    assert cluster.connection("client")["key"] != before["key"]
    assert cluster.client().ids == []


def test_two_engines_of_one_uuid_are_refused(shared):
    with RawPeer(shared.connection("engine")) as peer:
        uuid = next(iter(shared.engine_ids().values()))
        peer.send("registration", "registration_request", {"uuid": uuid})
        _, reply = peer.receive("registration")
    assert reply["msg_type"] == "registration_reply"
    assert reply["content"]["status"] == "error"
    assert uuid in reply["content"]["evalue"]


def test_an_engine_id_can_be_asked_for(start_cluster):
    cluster = start_cluster()
    cluster.start_engine("--IPEngine.id=5")
    assert list(cluster.wait_for_engines(1)) == [5]
    cluster.start_engine()
    assert sorted(cluster.wait_for_engines(2)) == [5, 6]


def test_shutdown_with_the_hub_ends_everything(start_cluster):
    cluster = start_cluster()
    engines = cluster.start_engines(2)
    rc = cluster.client()
    other = cluster.client()
    rc.shutdown(hub=True, block=True)
    assert cluster.controller.wait() == 0
    for engine in engines:
        engine.wait()
    assert not cluster.file("client").exists()
    assert not cluster.file("engine").exists()
    wait_for(lambda: not cluster.left_over(), "every process of the cluster to be gone")
    wait_for(lambda: other._closed, "the other client to close itself")


def test_shutdown_of_one_engine_leaves_the_other(start_cluster):
    cluster = start_cluster(engines=2)
    rc = cluster.client()
    rc.shutdown(targets=[0], block=True)
    wait_for(lambda: rc.ids == [1], "engine 0 to leave")
    assert rc[1].apply_sync(tasks.double, 1) == 2
    assert cluster.controller.running()


def test_nothing_is_left_of_a_killed_cluster(start_cluster):
    cluster = start_cluster(engines=2)
    # controller, two engines, their nannies: all carry the mark that this looks for
    assert len(cluster.left_over()) >= 5
    cluster.stop()
    assert cluster.left_over() == []
