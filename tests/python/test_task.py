"""`remuda task` about what stock clients and stock engines did, asked of our controller and of a stock one."""

from __future__ import annotations

import json
import pickle
import subprocess

import ipyparallel as ipp
import pytest
import tasks
from harness import DEADLINE, remuda_binary, wait_for

pytestmark = pytest.mark.skipif(remuda_binary() is None, reason="the command is that of a remuda binary")


class Asked:
    """What a command printed and said."""

    def __init__(self, cluster, *args):
        command = [remuda_binary(), "task", *args, f"--profile-dir={cluster.profile_dir}"]
        done = subprocess.run(command, env=cluster.env, cwd=cluster.work, capture_output=True, timeout=DEADLINE)
        self.code, self.bytes = done.returncode, done.stdout
        self.stdout, self.stderr = done.stdout.decode(errors="replace"), done.stderr.decode()

    def json(self):
        assert self.code == 0, self.stderr
        return json.loads(self.stdout)


def labels(cluster, *args):
    return [task["label"] for task in Asked(cluster, "list", "--output", "json", *args).json()]


@pytest.fixture(params=["--dictdb", "--sqlitedb"])
def cluster(start_cluster, request):
    return start_cluster(request.param, engines=2)


def run(view, label, function, *args):
    with view.temp_flags(label=label):
        result = view.apply_async(function, *args)
    result.wait(DEADLINE)
    return result


def test_what_stock_peers_did_is_listed_shown_and_read(cluster):
    rc = cluster.client()
    view = rc.load_balanced_view()
    plain = run(view, "plain", tasks.double, [1, "é"])
    opaque = run(view, "opaque", complex, 1, 2)
    failed = run(view, "failed", tasks.fail, "broken on purpose")
    spoken = run(rc[0], "spoken", tasks.speak, "hello")
    code = rc[1].execute("6 * 7", silent=False)
    code.wait(DEADLINE)
    blocker = view.apply_async(tasks.stay, str(cluster.work / "go"))
    with view.temp_flags(label="waiting", after=[blocker]):
        waiting = view.apply_async(tasks.double, 1)
    ids = [result.msg_ids[0] for result in (plain, opaque, failed, spoken, code)]

    def recorded():
        found = Asked(cluster, "list", "--output", "json", "--state", "done").json()
        return {task["msg_id"] for task in found} == set(ids)

    wait_for(recorded, "the ends on record")
    wait_for(lambda: labels(cluster, "--state", "waiting") == ["waiting"], "the one that waits")

    assert labels(cluster, "--state", "ok,error", "--queue", "task") == ["failed", "opaque", "plain"]
    assert labels(cluster, "--state", "error") == ["failed"]
    assert labels(cluster, "--label", "*pl*", "--state", "done") == ["plain"]
    assert labels(cluster, "--engine", "0", "--queue", "mux", "--state", "ok") == ["spoken"]
    assert labels(cluster, "--limit", "1", "--reverse") == ["plain"]
    assert labels(cluster, "--sort", "completed", "--limit", "2", "--state", "done") == [None, "spoken"]
    assert labels(cluster, "--since", "1h", "--state", "waiting") == ["waiting"]
    assert labels(cluster, "--until", "1h") == []
    kinds = {task["kind"] for task in Asked(cluster, "list", "--output", "json", "--state", "done").json()}
    assert kinds == {"apply", "execute"}
    assert "6 * 7" in Asked(cluster, "list").stdout

    assert Asked(cluster, "result", ids[0]).json() == [1, "é"] * 2
    raw = Asked(cluster, "result", ids[0], "--raw", "-")
    assert pickle.loads(raw.bytes) == [1, "é"] * 2
    unread = Asked(cluster, "result", ids[1])
    assert unread.code == 1 and not unread.stdout
    assert "pickle that only Python can read" in unread.stderr and "--raw" in unread.stderr
    error = Asked(cluster, "result", ids[2])
    assert error.code == 1 and not error.stdout
    assert "ValueError" in error.stderr and "broken on purpose" in error.stderr and "tasks.py" in error.stderr
    assert "\x1b" not in error.stderr
    spoke = Asked(cluster, "output", ids[3])
    assert (spoke.code, spoke.stdout, spoke.stderr) == (0, "hello\n", "HELLO\n")
    assert Asked(cluster, "result", ids[4]).stdout.strip() in ('"42"', "42")
    assert "waiting" in Asked(cluster, "result", waiting.msg_ids[0]).stderr

    shown = Asked(cluster, "show", ids[2]).stdout
    for words in ("state       error", "ValueError: broken on purpose", "label       failed"):
        assert words in shown, shown
    stats = Asked(cluster, "stats", "--output", "json").json()
    assert (stats["tasks"]["ok"], stats["tasks"]["error"], stats["tasks"]["waiting"]) == (4, 1, 1)
    query = Asked(cluster, "query", '{"completed": {"$ne": null}}', "--keys", "msg_id,label", "--output", "jsonl", "--reverse")
    assert [json.loads(line)["msg_id"] for line in query.stdout.splitlines()] == ids
    (cluster.work / "go").touch()
    waiting.wait(DEADLINE)


def test_what_stock_peers_did_is_resubmitted_and_purged(cluster):
    rc = cluster.client()
    done = run(rc.load_balanced_view(), "once", tasks.double, 4)
    wait_for(lambda: labels(cluster, "--state", "ok") == ["once"], "it on record")
    again = Asked(cluster, "resubmit", done.msg_ids[0])
    assert again.code == 0, again.stderr
    old, new = again.stdout.split()
    assert old == done.msg_ids[0]
    wait_for(lambda: Asked(cluster, "result", new).stdout == "8\n", "the result of the repetition")
    purged = Asked(cluster, "purge", old)
    assert (purged.code, purged.stderr.splitlines()[-1]) == (0, "1 record purged")
    assert Asked(cluster, "show", old).code == 1


@pytest.mark.remuda_only("there, a task that no engine has yet is out of reach")
def test_a_task_that_waits_is_aborted(cluster):
    rc = cluster.client()
    view = rc.load_balanced_view()
    blocker = view.apply_async(tasks.stay, str(cluster.work / "go"))
    with view.temp_flags(after=[blocker]):
        waiting = view.apply_async(tasks.double, 1)
    wait_for(lambda: Asked(cluster, "list", "--state", "waiting", "--output", "json").json(), "it on record")
    assert Asked(cluster, "abort", "--state", "waiting").code == 0
    with pytest.raises(ipp.error.TaskAborted):
        waiting.get(DEADLINE)
    (cluster.work / "go").touch()
    blocker.get(DEADLINE)
