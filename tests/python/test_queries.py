"""The query language of `db_query`: the same answers from memory, from a database, and from what its operators say.

Run with `--controller stock`, the expected answers are compared with those of ipyparallel's own `DictDB`, save for what is
plainly wrong there (docs/differences.md).
"""

from __future__ import annotations

import fnmatch
import json
import random
from datetime import timedelta

import ipyparallel as ipp
import pytest
import tasks
from harness import wait_for

QUERIES = 200
SEED = 20261122

LABELS = [None, "first", "second", "group/a", "group/b", "what*", "", "é"]


def fill(rc):
    """Records of every kind: done and failed, direct, balanced and broadcast, with and without a label."""
    results = []
    for number, label in enumerate(LABELS * 2):
        view = rc[number % 2] if number % 3 else rc.load_balanced_view()
        with view.temp_flags(label=label):
            if number % 5 == 4:
                results.append(view.apply_async(tasks.fail, "no"))
            else:
                results.append(view.apply_async(tasks.double, number))
    for result in results:
        result.wait(60)
    ids = [result.msg_ids[0] for result in results]
    done = {"msg_id": {"$in": ids}}

    def recorded():
        found = rc.db_query(done, keys=["completed"])
        return len(found) == len(ids) and all(record["completed"] for record in found)

    wait_for(recorded, "every task to be on record")
    return ids


TEXTS = ("msg_id", "queue", "engine_uuid", "client_uuid", "label", "stdout", "execute_input", "resubmitted")
DATES = ("submitted", "started", "completed", "received")


def draw_test(dice, field, records, stock):
    """A test of one field, and whether it holds for a value."""
    values = [record[field] for record in records]
    there = [value for value in values if value is not None]
    value = dice.choice(values)
    some = [dice.choice(values) for _ in range(dice.randrange(4))]
    tests = [
        ({"$eq": value}, lambda v: v == value),
        ({"$ne": value}, lambda v: v != value),
        ({"$in": some}, lambda v: v in some),
        ({"$nin": some}, lambda v: v not in some),
        ({"$exists": True}, lambda v: v is not None),
        ({"$exists": False}, lambda v: v is None),
        (value, lambda v: v == value),
    ]
    if there and (len(there) == len(values) or not stock):
        # Stock raises where a record has nothing to compare; its `$gt` is `$lt`.
        bound = dice.choice(there)
        if field in DATES:
            bound += timedelta(microseconds=dice.choice([-1, 0, 1]))
        tests += [
            ({"$lt": bound}, lambda v: v is not None and v < bound),
            ({"$lte": bound}, lambda v: v is not None and v <= bound),
            ({"$gte": bound}, lambda v: v is not None and v >= bound),
        ]
        if not stock:
            tests.append(({"$gt": bound}, lambda v: v is not None and v > bound))
    if field in TEXTS:
        pattern = dice.choice(["*", "group*", "*/[ab]", "*/[!a]", "m?x", "what[*]", "", *there])
        tests.append(({"$glob": pattern}, lambda v: v is not None and fnmatch.fnmatchcase(v, pattern)))
    return dice.choice(tests)


def draw_query(dice, records, stock):
    """A query, and whether it holds for a record. Stock gets one plain equality at most: it mixes several up."""
    query, holds = {}, []
    for field in dice.sample(TEXTS + DATES, dice.choice([1, 1, 2, 3])):
        test, says = draw_test(dice, field, records, stock)
        if stock and not isinstance(test, dict):
            test = {"$eq": test}
        query[field] = test
        holds.append((field, says))
    return query, lambda record: all(says(record[field]) for field, says in holds)


@pytest.mark.deadline(300)
@pytest.mark.parametrize("db", ["--dictdb", "--sqlitedb"])
def test_generated_queries_find_what_they_say(start_cluster, kind, db):
    if kind == "stock" and db == "--sqlitedb":
        pytest.skip("stock's two stores do not agree: the default one is compared")
    cluster = start_cluster(db, engines=2)
    rc = cluster.client()
    ids = fill(rc)
    mine = {"msg_id": {"$in": ids}}
    records = rc.db_query(mine)
    # In the order in which the hub heard of them: direct and balanced ones come on different sockets.
    assert sorted(record["msg_id"] for record in records) == sorted(ids)
    dice = random.Random(SEED)
    telling = 0
    for _ in range(QUERIES):
        query, holds = draw_query(dice, records, kind == "stock")
        expected = [record["msg_id"] for record in records if holds(record)]
        found = [record["msg_id"] for record in rc.db_query(query, keys=["msg_id"])]
        assert found == expected, query
        telling += 0 < len(found) < len(ids)
    assert telling > QUERIES // 5, f"only {telling} of {QUERIES} queries tell records apart"


@pytest.mark.remuda_only("stock loses what it has in memory, and its database is two seconds late")
def test_a_database_outlives_its_controller(start_cluster):
    cluster = start_cluster("--sqlitedb", engines=1)
    rc = cluster.client()
    view = rc[0]
    with view.temp_flags(label="kept"):
        result = view.apply_async(tasks.double, 21)
    assert result.get(60) == 42
    failed = rc[0].apply_async(tasks.fail, "no")
    failed.wait(60)
    msg_id = result.msg_ids[0]
    wait_for(lambda: len(rc.db_query({"completed": {"$ne": None}}, keys=["msg_id"])) == 2, "two records")
    cluster.controller.signal(15)
    assert cluster.controller.wait() == 0
    cluster.start_controller("--sqlitedb")
    other = cluster.client()
    assert other.hub_history() == [msg_id, failed.msg_ids[0]]
    assert [record["msg_id"] for record in other.db_query({"label": "kept"}, keys=["label"])] == [msg_id]
    assert other.get_result(msg_id, owner=False).get(60) == 42
    other.purge_hub_results(jobs=[msg_id])
    assert other.hub_history() == failed.msg_ids
    assert (cluster.profile_dir / "tasks.db").exists()


@pytest.mark.remuda_only("stock has no records of broadcasts")
def test_a_broadcast_is_on_record_for_each_engine(rc):
    view = rc.broadcast_view()
    result = view.apply_async(tasks.double, 4)
    assert result.get(60) == [8, 8]
    query = {"queue": "broadcast", "completed": {"$ne": None}}
    keys = ["engine_uuid", "metadata"]
    wait_for(lambda: len(rc.db_query(query, keys=keys)) >= 2, "a record for each engine")
    records = rc.db_query(query, keys=keys)[-2:]
    assert {record["engine_uuid"] for record in records} == set(rc._engines.values())
    for record in records:
        original = record["metadata"]["original_msg_id"]
        assert record["msg_id"] == f"{original}_{record['engine_uuid']}"
    assert {record["msg_id"] for record in records} <= set(rc.hub_history())
    status = rc.queue_status()
    assert all(status[engine]["queue"] == 0 for engine in rc.ids)


@pytest.mark.remuda_only("the errors name what to do")
def test_a_query_that_makes_no_sense_says_why(rc):
    for query, ename, what in [
        ({"nosuch": 1}, "KeyError", "nosuch"),
        ({"msg_id": {"$foo": 1}}, "KeyError", "$foo"),
        ({"submitted": {"$lt": 5}}, "TypeError", "submitted"),
    ]:
        with pytest.raises(ipp.RemoteError) as caught:
            rc.db_query(query)
        assert caught.value.ename == ename
        assert what in caught.value.evalue


@pytest.mark.remuda_only("stock's controller leaves children that hold the ports when it is killed")
def test_engines_of_a_killed_controller_are_restored(start_cluster):
    cluster = start_cluster("--reuse", engines=2)
    before = cluster.engine_ids()
    saved = cluster.profile_dir / "log" / "engines.json"
    wait_for(lambda: saved.exists() and len(json.loads(saved.read_text())["engines"]) == 2, "both engines to be saved")
    cluster.controller.signal(9)
    cluster.controller.wait()
    cluster.start_controller("--restore")
    wait_for(lambda: cluster.engine_ids() == before, "both engines to be there again")
    rc = cluster.client()
    assert rc[:].apply_async(tasks.double, 4).get(60) == [8, 8]
    assert rc.load_balanced_view().apply_async(tasks.double, 5).get(60) == 10
