"""Bytes from the network never crash, block or corrupt the controller."""

from __future__ import annotations

import json
import signal
import sys

import pytest
import tasks
from garbage import Garbage
from harness import HERE, Hung, RawPeer, wait_for

# Tasks, and pieces of rubbish a second. Python logs each piece with a traceback; a flood would only measure that.
AMOUNTS = {"stock": (1000, 100), "remuda": (10_000, 1000)}

# The stock relays have no defence: after a message of too few frames they may lose a good one, and whatever comes to
# iopub goes on to every client, whose handler raises.
SPARED = {"stock": ["mux", "control", "iopub"], "remuda": []}


@pytest.mark.deadline(420)
def test_results_are_right_while_rubbish_rains(start_cluster, kind):
    count, rate = AMOUNTS[kind]
    cluster = start_cluster(engines=4)
    rc = cluster.client()
    view = rc.load_balanced_view()
    security = cluster.file("client").parent
    command = [sys.executable, HERE / "garbage.py", security, "--seconds=3600", f"--rate={rate}"]
    command += [f"--spare={channel}" for channel in SPARED[kind]]
    garbage = cluster.start("garbage", command)
    wait_for(lambda: "throwing" in garbage.output(), "the rubbish to begin")
    results = view.map_async(tasks.double, range(count), chunksize=1).get(360)
    assert results == [2 * n for n in range(count)]
    assert rc[:].apply_sync(tasks.double, 2) == [4] * 4

    assert garbage.running(), "the rubbish ended before the tasks did"
    garbage.signal(signal.SIGTERM)
    assert garbage.wait() == 0
    sent = json.loads(garbage.output().splitlines()[-1])
    assert sum(sent.values()) > 100, sent

    assert cluster.controller.running()
    wait_for(lambda: rc.queue_status()["unassigned"] is not None, "the hub to answer")
    assert rc.ids == [0, 1, 2, 3], "no engine was lost, none invented"
    # A newcomer is served as well.
    assert cluster.client()[:].apply_sync(tasks.double, 3) == [6] * 4


@pytest.mark.parametrize("sort", [sort.__name__ for sort, _ in Garbage.SORTS])
def test_each_sort_alone(shared, rc, kind, sort):
    garbage = Garbage(shared.file("client").parent, 1, SPARED[kind])
    times = 1 if sort == "huge" else 5
    for place in garbage.readers:
        for _ in range(times):
            frames = getattr(garbage, sort)(place)
            if frames is not None:
                garbage.put(place, frames)
    # What comes after it on the same sockets is served: nothing is stuck behind it.
    assert rc[:].apply_sync(tasks.double, 1) == [2, 2]
    assert rc.load_balanced_view().map_sync(tasks.double, range(10)) == [2 * n for n in range(10)]
    assert rc.broadcast_view().apply_async(tasks.double, 1).get(60) == [2, 2]
    with RawPeer(shared.connection()) as peer:
        assert len(peer.query("connection_request")["content"]["engines"]) == 2
    garbage.close()
    assert shared.controller.running()


def test_an_unknown_query_is_answered_with_an_error(shared):
    with RawPeer(shared.connection()) as peer:
        reply = peer.query("foo_request")
    assert reply["msg_type"] == "hub_error"
    assert reply["content"]["ename"] == "KeyError"
    assert "foo_request" in reply["content"]["evalue"]


def test_a_badly_signed_message_has_no_effect(shared, rc):
    with RawPeer(shared.connection(), key="not-the-key") as peer:
        for msg_type, content in [("unregistration_request", {"id": 0}), ("shutdown_request", {})]:
            peer.send("registration", msg_type, content)
        with pytest.raises(Hung):
            peer.receive("registration", 1)
    assert rc.ids == [0, 1]
    assert shared.controller.running()


def test_the_same_frames_twice_are_one_request(shared):
    with RawPeer(shared.connection()) as peer:
        message = peer.session.msg("history_request")
        frames = peer.session.serialize(message)
        for _ in range(2):
            peer.socket("registration").send_multipart(frames)
        peer.receive_frames("registration")
        with pytest.raises(Hung):
            peer.receive_frames("registration", 1)
