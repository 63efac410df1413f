"""What any release of ipyparallel must be able to do; `releases.py` runs it with the Python that has the release.

    python basics.py CONNECTION_FILE ENGINES

It uses nothing of the tests, and nothing of ipyparallel that the oldest release lacks.
Prints what worked, and what did not how, as JSON.
"""

import json
import sys
import time

import ipyparallel as ipp


def double(number):
    return 2 * number


def divide(a, b):
    return a / b


def until(condition, what):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def connecting(rc, engines):
    until(lambda: len(rc.ids) == engines, "the engines")


def direct(rc, engines):
    assert rc[:].apply_sync(double, 3) == [6] * engines
    rc[:].push({"a": [1, 2]}, block=True)
    assert rc[:].pull("a", block=True) == [[1, 2]] * engines
    rc[:].scatter("b", list(range(8)), block=True)
    assert list(rc[:].gather("b", block=True)) == list(range(8))


def balanced(rc, engines):
    view = rc.load_balanced_view()
    assert list(view.map_sync(double, range(30))) == [2 * number for number in range(30)]
    first = view.apply_async(double, 1)
    with view.temp_flags(after=[first]):
        assert view.apply_async(double, 2).get(60) == 4


def errors(rc, engines):
    try:
        rc[0].apply_sync(divide, 1, 0)
    except ipp.RemoteError as error:
        assert error.ename == "ZeroDivisionError"
    else:
        raise AssertionError("no error")


def output(rc, engines):
    result = rc[:].execute("print(6 * 7)", block=True)
    until(lambda: result.stdout == ["42\n"] * engines, f"output: {result.stdout}")


def broadcast(rc, engines):
    assert list(rc.broadcast_view().apply_sync(double, 4)) == [8] * engines


def queries(rc, engines):
    result = rc[0].apply_async(double, 5)
    assert result.get(60) == 10
    until(lambda: rc.result_status(result.msg_ids)["completed"] == result.msg_ids, "the hub to see a result")
    assert rc.queue_status(0)["completed"] > 0
    assert result.msg_ids[0] in rc.hub_history()
    (record,) = rc.db_query({"msg_id": result.msg_ids[0]}, keys=["msg_id", "completed"])
    assert record["completed"]
    rc.purge_hub_results(result)


def stopping_an_engine(rc, engines):
    rc.shutdown(targets=[rc.ids[-1]], block=True)
    until(lambda: len(rc.ids) == engines - 1, "an engine to go")


ALL = (connecting, direct, balanced, errors, output, broadcast, queries, stopping_an_engine)

if __name__ == "__main__":
    rc = ipp.Client(sys.argv[1], timeout=30)
    found = {}
    for check in ALL:
        if check is broadcast and not hasattr(rc, "broadcast_view"):
            found[check.__name__] = "the release has none"
            continue
        try:
            check(rc, int(sys.argv[2]))
        except Exception as error:
            found[check.__name__] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        else:
            found[check.__name__] = "works"
    rc.close()
    print(json.dumps(found))
