"""A cluster with engines on another machine, as stock's tools see it: over a real SSH server, of this machine."""

from __future__ import annotations

import getpass
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import ipyparallel as ipp
import pytest
from harness import Cluster, remuda_binary, wait_for

pytestmark = pytest.mark.remuda_only("`remuda cluster` starts it")

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
HOST = "127.0.0.1"


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


@pytest.fixture
def ssh(tmp_path):
    """A server: the port, and arguments for ssh that lead to it."""
    if not (SSHD and shutil.which("ssh-keygen") and shutil.which("ssh")):
        pytest.skip("there is no SSH server: sshd, ssh or ssh-keygen is not installed")
    for key in ("host_key", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / key], check=True)
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    (tmp_path / "tmp").mkdir()
    (tmp_path / "authorized_keys").write_text((tmp_path / "key.pub").read_text())
    (tmp_path / "known_hosts").write_text(f"[{HOST}]:{port} {(tmp_path / 'host_key.pub').read_text()}")
    settings = {
        "Port": port,
        "ListenAddress": HOST,
        "HostKey": tmp_path / "host_key",
        "AuthorizedKeysFile": tmp_path / "authorized_keys",
        "SetEnv": f"TMPDIR={tmp_path / 'tmp'}",
        "StrictModes": "no",
        "UsePAM": "no",
        "PermitRootLogin": "yes",
        "PidFile": "none",
    }
    (tmp_path / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    if Path("/run").exists() and getpass.getuser() == "root":
        Path("/run/sshd").mkdir(exist_ok=True)  # where its unprivileged part lives
    with open(tmp_path / "sshd.log", "wb") as log:
        server = subprocess.Popen([SSHD, "-D", "-e", "-f", tmp_path / "sshd_config"], stdin=subprocess.DEVNULL, stderr=log)
    try:
        wait_for(lambda: server.poll() is not None or listens(port), "the SSH server")
        if server.poll() is not None:
            pytest.skip(f"there is no SSH server: {(tmp_path / 'sshd.log').read_text().strip()}")
        options = ["IdentitiesOnly=yes", "IdentityAgent=none", f"UserKnownHostsFile={tmp_path / 'known_hosts'}"]
        yield port, ["-F", "none", "-i", str(tmp_path / "key"), *(word for option in options for word in ("-o", option))]
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def cluster(ssh, tmp_path):
    """A cluster with three engines there, without any here."""
    port, arguments = ssh
    cluster = Cluster(tmp_path / "cluster", "remuda")
    start = [remuda_binary(), "cluster", "start", "--daemonize", f"--profile-dir={cluster.profile_dir}"]
    start += [f"--host={getpass.getuser()}@{HOST}:{port}=3", f"--ssh-remuda={remuda_binary()}"]
    start += [f"--ssh-arg={word}" for word in arguments]
    started = subprocess.run(start, env=cluster.env, cwd=cluster.work, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    try:
        assert started.returncode == 0, started.stderr
        yield cluster
    finally:
        stop = [remuda_binary(), "cluster", "stop", f"--profile-dir={cluster.profile_dir}"]
        subprocess.run(stop, env=cluster.env, cwd=cluster.work, stdin=subprocess.DEVNULL, capture_output=True)
        cluster.stop()


def listed(cluster):
    """What `ipcluster list` shows of all clusters: whether each runs, and how many engines it has."""
    command = [sys.executable, "-m", "ipyparallel.cluster", "list", f"--profile-dir={cluster.profile_dir}", "-o", "json"]
    done = subprocess.run(command, env=cluster.env, cwd=cluster.work, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return [
        (one["controller"]["state"]["state"], sum(engines["n"] for engines in one["engines"]["sets"].values()))
        for one in json.loads(done.stdout)
    ]


def is_gone(cluster, tmp_path):
    wait_for(lambda: not cluster.left_over(), "the end of all processes here")
    wait_for(lambda: not list((tmp_path / "tmp").iterdir()), "the end of all files there")
    return listed(cluster) == [] and not list((cluster.profile_dir / "security").glob("*.json"))


def test_stock_lists_engines_of_other_machines_and_stops_the_cluster(cluster, tmp_path):
    assert listed(cluster) == [("running", 3)]
    found = ipp.Cluster.from_file(profile_dir=str(cluster.profile_dir), cluster_id="")
    with found.connect_client_sync() as client:
        client.wait_for_engines(3, timeout=30)
        assert len(client.ids) == 3
    found.stop_cluster_sync()
    assert is_gone(cluster, tmp_path)


def test_what_stock_does_to_the_engines_of_other_machines_alone_leaves_the_controller(cluster, tmp_path):
    found = ipp.Cluster.from_file(profile_dir=str(cluster.profile_dir), cluster_id="")
    found.stop_engines_sync()
    wait_for(lambda: listed(cluster) == [("running", 0)], "the end of the engines")
    with found.connect_client_sync() as client:
        wait_for(lambda: client.ids == [], "the controller to know")
    found.stop_controller_sync()
    assert is_gone(cluster, tmp_path)
