"""Task records in a database that cannot be written for a while."""

from __future__ import annotations

import resource
import sqlite3

import pytest
import tasks
from harness import wait_for

pytestmark = pytest.mark.remuda_only("stock ends, or loses records, when its disk is full")


def test_a_full_disk_costs_no_task_and_no_record(start_cluster):
    cluster = start_cluster("--sqlitedb", engines=1)
    rc = cluster.client()
    view = rc[0]
    first = view.apply_async(tasks.double, 1)
    assert first.get(60) == 2
    # No file of the controller may become larger than this one is, which is as good as a full disk.
    database = cluster.profile_dir / "tasks.db"
    wait_for(lambda: len(rc.hub_history()) == 1, "the record")
    log = database.with_name("tasks.db-wal")
    pid = cluster.controller.pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (log.stat().st_size, hard))
    text = "x" * 20_000
    results = [view.apply_async(tasks.double, text) for _ in range(20)]
    assert [result.get(60) for result in results] == [text * 2] * 20
    wait_for(lambda: "waits in memory" in cluster.controller.output(), "the controller to say so")
    assert cluster.controller.running()
    # There is room again: every record is there.
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
    wait_for(lambda: "can be written again" in cluster.controller.output(), "the records to be written")
    ids = [result.msg_ids[0] for result in [first, *results]]
    assert rc.hub_history() == ids
    records = rc.db_query({"completed": {"$ne": None}}, keys=["msg_id", "result_buffers"])
    assert [record["msg_id"] for record in records] == ids
    cluster.controller.signal(15)
    assert cluster.controller.wait() == 0
    cluster.start_controller("--sqlitedb")
    assert cluster.client().hub_history() == ids


@pytest.mark.parametrize("durability", ["async", "sync"])
def test_a_controller_that_is_killed_is_taken_over_from(start_cluster, durability):
    options = ["--sqlitedb", f"--durability={durability}", "--reuse"]
    cluster = start_cluster(*options, engines=2)
    rc = cluster.client()
    view = rc.load_balanced_view()
    done = [view.apply_async(tasks.double, number) for number in range(20)]
    assert [result.get(60) for result in done] == [2 * number for number in range(20)]
    slow = [view.apply_async(tasks.nap, 0.2) for _ in range(40)]
    with view.temp_flags(after=[slow[-1], done[0]]):
        last = view.apply_async(tasks.double, 100)
    # What is not on disk yet may be lost: nothing of that is tried here.
    database = sqlite3.connect(f"file:{cluster.profile_dir / 'tasks.db'}?mode=ro", uri=True)
    count = 'SELECT count(*) FROM "ipython-tasks"'
    wait_for(lambda: database.execute(count).fetchone() == (61,), "all to be on disk")
    database.close()
    cluster.controller.signal(9)
    cluster.controller.wait()
    cluster.start_controller(*options)
    for result in slow:
        result.get(120)
    assert last.get(60) == 200
    assert rc.queue_status()["unassigned"] == 0
    assert len(cluster.client().db_query({"state": "ok"}, keys=["msg_id"])) == 61
