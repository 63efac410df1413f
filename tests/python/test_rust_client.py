"""The Rust client against stock controllers and stock engines, and against ours with both kinds of engines.

What is checked stands in Rust, in `client/tests`; here is what it needs: clusters.
"""

from __future__ import annotations

import os
import subprocess

import pytest
from harness import REPOSITORY, Cluster

pytestmark = pytest.mark.remuda_only("it names its controllers itself")


def run_rust_test(name, variable, cluster):
    """Runs an ignored test of the client on this cluster. It was built with the others, so nothing is compiled here."""
    command = ["cargo", "test", "--workspace", "--test", name, "--", "--ignored", "--test-threads=1"]
    environment = {**os.environ, variable: str(cluster.file("client"))}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0 and "ok. 0 passed" not in done.stdout, f"{done.stdout}\n{done.stderr}\n{cluster.report()}"


@pytest.fixture(params=["stock", "remuda"])
def cluster(request, tmp_path):
    with Cluster(tmp_path, kind=request.param) as cluster:
        cluster.start_controller()
        yield cluster


@pytest.mark.parametrize("cluster", ["stock"], indirect=True)
def test_a_stock_cluster_serves_it(cluster):
    cluster.start_engines(2)
    run_rust_test("stock", "REMUDA_STOCK_FILE", cluster)


def test_it_calls_python_functions_with_arrays(cluster):
    cluster.start_engines(2)
    run_rust_test("python", "REMUDA_STOCK_FILE", cluster)


def test_native_engines_serve_it_whatever_the_controller(cluster):
    engines = 2 if cluster.kind == "remuda" else 1
    for _ in range(engines):
        cluster.start_example_engine()
    cluster.wait_for_engines(engines)
    run_rust_test("mixed", "REMUDA_MIXED_FILE", cluster)
