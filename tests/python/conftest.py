"""Scenarios with stock clients and stock engines, against a controller chosen on the command line.

    python=$(tests/python/venv.sh)
    "$python" -m pytest tests/python                        # remuda: REMUDA_BIN, or what cargo built last
    "$python" -m pytest tests/python --controller stock     # ipyparallel's own: the tests themselves are sound

Each cluster has its own folder and processes; the logs of every process come with a failure.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import tasks
from harness import DEADLINE, REPOSITORY, Cluster, Hung, remuda_binary, wait_for

os.environ["IPP_NONINTERACTIVE"] = "1"  # no progress bars

USUAL_LIMIT = 180


def pytest_addoption(parser):
    parser.addoption(
        "--controller",
        choices=("remuda", "stock"),
        default="remuda",
        help="the controller under test (default: remuda)",
    )


def pytest_configure(config):
    config.stash[CLUSTERS] = []
    # An ended run ends its clusters too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if config.getoption("--controller") == "remuda" and remuda_binary() is None:
        raise pytest.UsageError("no remuda binary: `cargo build --release`, set REMUDA_BIN, or use --controller stock")


def pytest_report_header(config):
    kind = config.getoption("--controller")
    return f"controller: {kind}" + (f" ({remuda_binary()})" if kind == "remuda" else "")


def pytest_collection_modifyitems(config, items):
    stock = config.getoption("--controller") == "stock"
    for item in items:
        for mark in item.iter_markers("remuda_only" if stock else "not_yet"):
            if stock:
                item.add_marker(pytest.mark.skip(reason=f"remuda only: {mark.args[0]}"))
            else:
                item.add_marker(pytest.mark.xfail(reason=f"not yet: {mark.args[0]}", strict=True))


def pytest_terminal_summary(terminalreporter):
    """What is left out here is told at the end of the whole run, too (`tests/run`)."""
    named = os.environ.get("REMUDA_SKIPPED")
    if not named:
        return
    with open(named, "a") as file:
        for report in terminalreporter.stats.get("skipped", ()):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            file.write(f"{report.nodeid}: {str(reason).removeprefix('Skipped: ')}\n")


# Clusters that run now, so that a failure can show their logs.
CLUSTERS = pytest.StashKey()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        for cluster in item.config.stash[CLUSTERS]:
            report.sections.append((f"processes of {cluster.folder.name}", cluster.report()))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Nothing may hang: a test that does is failed where it stands."""
    mark = item.get_closest_marker("deadline")
    limit = int((mark.args[0] if mark else USUAL_LIMIT) * max(1.0, DEADLINE / 60))

    def hung(*_):
        raise Hung(f"the test took more than {limit} s")

    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(limit)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """The package `remuda`, as its wheel has it; `REMUDA_WHEEL` names one that is there already."""
    named = os.environ.get("REMUDA_WHEEL")
    folder = tmp_path_factory.mktemp("package")
    if not named:
        environment = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
        build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder / "wheel"]
        subprocess.run([*build, REPOSITORY / "python"], env=environment, check=True, capture_output=True)
        (named,) = (folder / "wheel").glob("*.whl")
    with zipfile.ZipFile(named) as wheel:
        wheel.extractall(folder / "installed")
    sys.path.insert(0, str(folder / "installed"))
    import remuda

    return remuda


@pytest.fixture(scope="session")
def kind(request):
    return request.config.getoption("--controller")


def make(request, folder, kind):
    """A function that starts clusters and one that ends them all."""
    clusters = []

    def start(*args, engines=0, answering=True):
        cluster = Cluster(folder / f"cluster{len(clusters)}", kind)
        clusters.append(cluster)
        request.config.stash[CLUSTERS].append(cluster)
        cluster.start_controller(*args, answering=answering)
        if engines:
            cluster.start_engines(engines)
        return cluster

    def stop():
        for cluster in clusters:
            cluster.stop()
            request.config.stash[CLUSTERS].remove(cluster)
        left = {cluster.folder.name: cluster.left_over() for cluster in clusters if cluster.left_over()}
        assert not left, f"processes left: {left}"

    return start, stop


@pytest.fixture
def start_cluster(request, tmp_path, kind):
    """`start_cluster(*controller_args, engines=n)`: a cluster for this test alone."""
    start, stop = make(request, tmp_path, kind)
    yield start
    stop()


@pytest.fixture(scope="module")
def shared(request, tmp_path_factory, kind):
    """A cluster with two engines that the tests of a module share, and leave as they found it."""
    start, stop = make(request, tmp_path_factory.mktemp("shared"), kind)
    yield start(engines=2)
    stop()


@pytest.fixture
def rc(shared):
    """A stock client of the shared cluster that sees both engines."""
    client = shared.client()
    assert len(client.ids) == 2, client.ids
    yield client
    shared.clients.remove(client)
    client.close()


@pytest.fixture
def hearing(rc):
    """The same client, once it hears what engines publish: that takes effect some time after it is connected."""
    wait_for(lambda: rc[0].apply_async(tasks.speak, "?").wait_for_output(1), "the client to hear an engine")
    return rc


class Gate:
    """A file that `tasks.stay` waits for."""

    def __init__(self, file):
        self.file = file
        self.path = str(file)

    def open(self):
        self.file.touch()


@pytest.fixture
def gate(tmp_path):
    """Opened when the test ends, however it ends: no engine of a shared cluster is left waiting."""
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.open()
