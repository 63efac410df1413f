"""Transports, interfaces, ports, configuration files, CURVE and cluster files, with stock peers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys

import ipyparallel as ipp
import pytest
import tasks
from harness import remuda_binary, wait_for


def free_ports(count):
    """Ports that were free a moment ago."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


@pytest.mark.remuda_only("stock binds other addresses for ipc than its peers connect to")
def test_ipc_serves_stock_clients_and_engines_wherever_they_run(start_cluster, tmp_path, monkeypatch):
    cluster = start_cluster("--transport=ipc", engines=2)
    monkeypatch.chdir(tmp_path)
    rc = cluster.client()
    assert rc.ids == [0, 1]
    assert rc[:].apply_sync(tasks.double, 21) == [42, 42]
    assert rc.load_balanced_view().map_sync(tasks.double, range(4)) == [0, 2, 4, 6]
    assert rc.broadcast_view().apply_sync(tasks.double, 4) == [8, 8]
    assert rc[:].apply_async(tasks.pid).get(60)


def test_engines_and_clients_may_have_interfaces_of_their_own(start_cluster):
    cluster = start_cluster("--IPController.engine_ip=127.0.0.2", "--IPController.client_ip=127.0.0.1", engines=1)
    assert cluster.connection("engine")["interface"] == "tcp://127.0.0.2"
    assert cluster.connection("client")["interface"] == "tcp://127.0.0.1"
    assert cluster.client()[0].apply_sync(tasks.double, 2) == 4


@pytest.mark.parametrize("depth", [0, 2])
def test_broadcast_reaches_engines_at_every_leaf(start_cluster, depth):
    cluster = start_cluster(f"--IPController.broadcast_scheduler_depth={depth}", engines=3)
    assert len(cluster.connection("engine")["broadcast"]) == 2**depth
    view = cluster.client().broadcast_view()
    view.is_coalescing = False
    assert view.apply_sync(tasks.double, 3) == [6, 6, 6]


def test_a_configuration_file_is_heeded_and_the_command_line_goes_over_it(start_cluster):
    cluster = start_cluster()
    cluster.controller.signal(signal.SIGTERM)
    cluster.controller.wait()
    engine, client = free_ports(2), free_ports(2)
    (cluster.profile_dir / "ipcontroller_config.py").write_text(
        f"""
c = get_config()  # noqa
c.IPController.engine_ports = {engine}
c.IPController.client_ports = [
    {client[0]},  # control
    {client[1]},
]
c.IPController.location = 'from-the-file'
c.TaskScheduler.scheme_name = 'lru'
c.Session.key = b'of the file'
"""
    )
    cluster.start_controller("--scheme=twobin")
    connection = cluster.connection("client")
    assert [connection["registration"], cluster.connection("engine")["control"]] == engine
    assert [connection["control"], connection["mux"]] == client
    assert connection["location"] == "from-the-file"
    assert connection["task_scheme"] == "twobin"
    assert connection["key"] == "of the file"


@pytest.mark.remuda_only("it is about remuda's table of settings")
@pytest.mark.parametrize("program", ["controller", "engine", "cluster start"])
def test_every_setting_of_stock_is_in_the_table(program):
    from ipyparallel.cluster.app import IPClusterEngines, IPClusterStart, IPClusterStop
    from ipyparallel.controller.app import IPController
    from ipyparallel.engine.app import IPEngine

    command = [remuda_binary(), *program.split(), "--help-all"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    known = {row.split("`")[1] for row in printed.splitlines() if row.startswith("| `")}
    assert len(known) > 50
    names = {"BaseParallelApplication": "Application", "BaseIPythonApplication": "Application"}
    names |= {app: "IPCluster" for app in ("IPClusterStart", "IPClusterEngines", "IPClusterStop")}
    apps = {"controller": [IPController], "engine": [IPEngine]}
    missing = set()
    for app in apps.get(program, [IPClusterStart, IPClusterEngines, IPClusterStop]):
        # Launchers that packages bring are no setting of stock; ours is on this process's path once a test has put it there.
        for cls in {cls for cls in (app, *app().classes) if cls.__module__.partition(".")[0] in ("ipyparallel", "IPython")}:
            for name, trait in cls.class_traits(config=True).items():
                by_name = {f"{names.get(base.__name__, base.__name__)}.{name}" for base in cls.__mro__}
                owner = trait.this_class.__name__
                by_class = {f"{names.get(one, one)}.*" for one in (owner, cls.__name__)}
                if not known & (by_name | by_class):
                    missing.add(f"{cls.__name__}.{name}")
    assert not missing


def has_curve(kind):
    if kind == "stock":
        return True
    version = subprocess.run([remuda_binary(), "--version"], capture_output=True, text=True, check=True).stdout
    return "with CURVE" in version


def test_curve_lets_in_who_knows_the_key_and_nobody_else(start_cluster, kind, tmp_path):
    if not has_curve(kind):
        pytest.skip("this remuda was built without CURVE (docs/configuration.md)")
    cluster = start_cluster("--IPController.enable_curve=True", answering=False)
    cluster.wait_for_files()
    connection = cluster.connection()
    assert len(connection["curve_serverkey"]) == 40
    assert connection["key"] == ""
    cluster.start_engine()
    rc = cluster.client()
    wait_for(lambda: rc.ids == [0], "the engine")
    assert rc[0].apply_sync(tasks.double, 2) == 4
    assert rc.load_balanced_view().apply_sync(tasks.double, 3) == 6
    if kind == "remuda":
        cluster.start_native_engine()
        wait_for(lambda: rc.ids == [0, 1], "the native engine")

    import zmq

    public, _ = zmq.curve_keypair()
    for stranger in ({"curve_serverkey": public.decode()}, {"curve_serverkey": None}):
        wrong = tmp_path / "wrong.json"
        wrong.write_text(json.dumps({**connection, **stranger}))
        with pytest.raises(TimeoutError, match="timed out"):
            ipp.Client(str(wrong), timeout=1)
    assert rc[0].apply_sync(tasks.double, 5) == 10


@pytest.mark.remuda_only("it is about remuda's own command")
def test_stock_finds_and_stops_a_cluster_that_remuda_started(start_cluster):
    # The controller of the fixture has another cluster id; what counts is its folder, environment and end.
    cluster = start_cluster()
    options = [f"--profile-dir={cluster.profile_dir}", "--cluster-id=mine"]
    start = [remuda_binary(), "ipcluster", "start", "-n", "1", "--daemonize", *options]
    env = {**cluster.env, "REMUDA_PYTHON": sys.executable}
    done = subprocess.run(
        [*start, "--", "--ping=200"], env=env, cwd=cluster.work, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    listing = subprocess.run(
        [sys.executable, "-m", "ipyparallel.cluster", "list", "-o", "json", options[0]],
        env=env, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert [one["cluster"]["cluster_id"] for one in json.loads(listing.stdout)] == ["mine"]
    found = ipp.Cluster.from_file(profile_dir=str(cluster.profile_dir), cluster_id="mine")
    with found.connect_client_sync() as rc:
        rc.wait_for_engines(1, timeout=60)
        assert rc[0].apply_sync(tasks.double, 3) == 6
        engine_pid = rc[0].apply_sync(os.getpid)
    found.stop_cluster_sync()
    wait_for(lambda: not alive(engine_pid), "the end of the engine")
    wait_for(lambda: not (cluster.profile_dir / "security" / "ipcontroller-mine-client.json").exists(), "its files")


@pytest.mark.remuda_only("it is about remuda's own command")
def test_remuda_lists_and_stops_a_cluster_that_stock_started(start_cluster):
    cluster = start_cluster()
    options = [f"--profile-dir={cluster.profile_dir}", "--cluster-id=theirs"]
    start = [sys.executable, "-m", "ipyparallel.cluster", "start", "-n", "1", "--daemonize", *options]
    subprocess.run(start, env=cluster.env, cwd=cluster.work, capture_output=True, timeout=120, check=True)
    written = json.loads((cluster.profile_dir / "security" / "cluster-theirs.json").read_text())
    controller_pid = written["controller"]["state"]["pid"]

    def ipcluster(*words):
        command = [remuda_binary(), "ipcluster", *words, options[0]]
        return subprocess.run(command, env=cluster.env, capture_output=True, text=True, timeout=60)

    assert ["theirs", "True"] in [line.split()[1:3] for line in ipcluster("list").stdout.splitlines()]
    stopped = ipcluster("stop", "theirs")
    assert stopped.returncode == 0, stopped.stderr
    wait_for(lambda: not alive(controller_pid), "the end of their controller")


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
