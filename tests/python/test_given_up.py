"""An ipyparallel engine of `remuda cluster` that the controller gave up while its process went on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from harness import Cluster, remuda_binary, wait_for

pytestmark = pytest.mark.remuda_only("`remuda cluster` starts it")


def test_an_engine_that_was_not_heard_for_too_long_is_started_again(tmp_path):
    cluster = Cluster(tmp_path / "cluster", "remuda")
    place = f"--profile-dir={cluster.profile_dir}"

    def remuda(*words):
        command = [remuda_binary(), "cluster", *words]
        return subprocess.run(command, env=cluster.env, cwd=cluster.work, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    def engines():
        return json.loads(remuda("status", place, "-o", "json").stdout)["engines"]

    started = remuda(
        "start", place, "--daemonize", "--engines=python", f"--python={sys.executable}", "-n", "1",
        "--", "--ping=250", "--max-heart-misses=12",
    )  # fmt: skip
    try:
        assert started.returncode == 0, started.stderr
        first = engines()[0]
        os.kill(first["pid"], signal.SIGSTOP)
        with cluster.client() as client:
            wait_for(lambda: client.ids == [], "the controller to give it up")
            os.kill(first["pid"], signal.SIGCONT)
            wait_for(lambda: len(client.ids) == 1, "another one", deadline=90)
            assert client[:].apply_sync(os.getpid) != [first["pid"]]
        (again,) = engines()
        assert (again["state"], again["unit"]) == ("idle", first["unit"])
    finally:
        remuda("stop", place)
        cluster.stop()
    wait_for(lambda: not cluster.left_over(), "the end of all processes")
