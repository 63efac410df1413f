"""Task records in a database that cannot be written for a while."""

from __future__ import annotations

import resource

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
