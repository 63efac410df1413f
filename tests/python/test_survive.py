"""The controller is killed under ordinary scripts, which notice nothing."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import uuid

import psutil
import pytest
import tasks
from harness import DEADLINE, MARK, REPOSITORY, processes_marked, remuda_binary, wait_for

pytestmark = pytest.mark.remuda_only("a stock controller that is killed has forgotten its tasks")

EXAMPLE = REPOSITORY / "examples" / "python" / "survive.py"
TASKS, KILLS = 5000, 20


@pytest.mark.deadline(300)
@pytest.mark.parametrize("durability", ["async", "sync"])
def test_a_script_survives_twenty_deaths_of_its_controller(tmp_path, durability):
    mark = uuid.uuid4().hex
    env = {**os.environ, MARK: mark, "TMPDIR": str(tmp_path), "IPYTHONDIR": str(tmp_path / "ipython")}
    words = [
        sys.executable, EXAMPLE, "--remuda", remuda_binary(), "--durability", durability, "--engines", 4,
        "--tasks", TASKS, "--kills", KILLS, "--pause", 0.3, "--patience", 4 * DEADLINE,
    ]  # fmt: skip
    try:
        done = subprocess.run(
            [str(word) for word in words], stdin=subprocess.DEVNULL, capture_output=True, text=True, env=env
        )
        assert done.stdout, done.stderr[-6000:]
        said = json.loads(done.stdout)
        assert not said.get("hung"), done.stderr[-6000:]
        wanted = {"tasks": TASKS, "answered": TASKS, "kills": KILLS, "wrong": [], "failed": [], "stale": 0}
        if durability == "sync":
            # Otherwise one that ended just before a kill may run again, after others that waited for it have begun.
            wanted["early"] = []
        assert {key: said[key] for key in wanted} == wanted
        assert done.returncode == 0, done.stderr[-6000:]
        # The nannies of stock engines end by themselves.
        wait_for(lambda: not processes_marked(mark), "its processes to end")
    finally:
        for process in processes_marked(mark):
            try:
                process.kill()
            except psutil.Error:
                pass


def listening_ports(program):
    connections = psutil.Process(program.pid).net_connections("tcp")
    return {connection.laddr.port for connection in connections if connection.status == psutil.CONN_LISTEN}


def connections_to(ports, process):
    open_ones = (psutil.CONN_ESTABLISHED, psutil.CONN_CLOSE_WAIT)
    connections = [connection for connection in process.net_connections("tcp") if connection.status in open_ones]
    return [connection for connection in connections if connection.raddr.port in ports]


@pytest.mark.parametrize("durability", ["async", "sync"])
@pytest.mark.parametrize("results", ["while it is away", "when one client has asked", "before anybody asks"])
def test_each_of_two_clients_gets_its_own_results_from_the_next_controller(
    start_cluster, gate, tmp_path, durability, results
):
    options = ["--sqlitedb", f"--durability={durability}"]
    cluster = start_cluster(*options, engines=2)
    # Their connections have no names, and come back in any order.
    clients = {name: cluster.client() for name in ("ann", "bob")}
    # Both engines are busy: whatever follows is outstanding when the controller dies.
    noted = tmp_path / "busy"
    busy = [clients["ann"][engine].apply_async(tasks.note_and_stay, str(noted), gate.path) for engine in (0, 1)]
    wait_for(lambda: noted.exists() and len(noted.read_text().splitlines()) == 2, "both engines to be busy")
    asked = {}
    for number in range(20):
        for name, rc in clients.items():
            for how, view in (("balanced", rc.load_balanced_view()), ("direct", rc[number % 2])):
                asked[name, how, number] = view.apply_async(tasks.same, (name, how, number))
    # What is not on disk yet may be lost: nothing of that is tried here.
    database = sqlite3.connect(f"file:{cluster.profile_dir / 'tasks.db'}?mode=ro", uri=True)
    count = 'SELECT count(*) FROM "ipython-tasks"'
    wait_for(lambda: database.execute(count).fetchone() == (len(asked) + len(busy),), "all to be on disk")
    database.close()
    ports = listening_ports(cluster.controller)
    engines = [psutil.Process(int(pid)) for pid in noted.read_text().split()]
    assert all(connections_to(ports, engine) for engine in engines)
    cluster.controller.signal(9)
    cluster.controller.wait()
    if results == "while it is away":
        # What an engine writes to a connection whose other end is dead, it loses.
        wait_for(lambda: not any(connections_to(ports, engine) for engine in engines), "engines to notice")
        gate.open()
    cluster.start_controller(*options)
    if results == "when one client has asked":
        asked["ann", "later", 0] = clients["ann"].load_balanced_view().apply_async(tasks.same, ("ann", "later", 0))
    gate.open()
    for result in busy:
        result.get(60)
    assert {what: result.get(60) for what, result in asked.items()} == {what: what for what in asked}
    for name, rc in clients.items():
        # Nothing is left of what was asked before, and all is as ever.
        rc.wait(timeout=60)
        assert not rc.outstanding
        assert rc[:].apply_sync(tasks.same, name) == [name, name]
        assert rc.load_balanced_view().map_sync(tasks.double, range(5)) == [0, 2, 4, 6, 8]
