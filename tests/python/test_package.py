"""The Python package, as pip installs it: in a new environment beside the pinned ipyparallel.

`REMUDA_WHEEL` names a wheel that is there already; otherwise one is built from this checkout, for which cargo must be there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from harness import HERE, MARK, REPOSITORY, example_engine, processes_marked, wait_for

pytestmark = pytest.mark.remuda_only("the package carries remuda")


def run(*command, **options):
    """A program to its end: its standard output. Fails with both outputs if the program does."""
    command = [str(word) for word in command]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The built package. Cargo's target folder is the workspace's, so only the program itself is linked again."""
    named = os.environ.get("REMUDA_WHEEL")
    if named:
        return Path(named).resolve()
    folder = tmp_path_factory.mktemp("wheel")
    environment = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder]
    run(*build, REPOSITORY / "python", env=environment)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """The `bin` folder of a new virtual environment with the package in it."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", folder)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-compile"]
    run(*pip, "--require-hashes", "-r", HERE / "requirements.txt")
    run(*pip, "--no-deps", wheel)
    return folder / "bin"


class User:
    """Somebody with the environment's programs, and a home of their own."""

    def __init__(self, programs, home):
        self.programs = programs
        self.home = home
        self.mark = uuid.uuid4().hex
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("IPP_", "IPYTHON", "JUPYTER", "PYTHON", "REMUDA"))},
            "IPYTHONDIR": str(home / "ipython"),
            MARK: self.mark,
        }

    def run(self, program, *args):
        return run(self.programs / program, *args, env=self.env, cwd=self.home)

    def scenario(self, name):
        """What a function of `package_scenarios.py` saw. Warnings may come before it."""
        return json.loads(self.run("python", HERE / "package_scenarios.py", name).splitlines()[-1])

    def connection_files(self):
        return sorted(path.name for path in self.home.rglob("*/security/*.json"))

    def left_over(self):
        return processes_marked(self.mark)


@pytest.fixture
def user(environment, tmp_path):
    user = User(environment, tmp_path)
    yield user
    try:
        wait_for(lambda: not user.left_over(), "every process to end", 15)
    finally:
        for process in user.left_over():
            process.kill()


def test_the_program_comes_with_the_package(user):
    version = user.run("remuda", "--version")
    assert version.startswith("remuda ")
    assert user.run("python", "-m", "remuda", "--version") == version
    code = "import remuda, sys; assert 'ipyparallel' not in sys.modules; print(remuda.find_program(), remuda.__version__)"
    program, number = user.run("python", "-c", code).split()
    assert Path(program).samefile(user.programs / "remuda")
    assert version.split()[1] == number
    wrong = subprocess.run([user.programs / "python", "-m", "remuda", "no-such-command"], capture_output=True, env=user.env)
    assert wrong.returncode == 2


def test_one_word_puts_remuda_in_place_of_the_stock_controller(user):
    seen = user.scenario("change_one_word")
    assert seen == {
        "controller": [str(user.programs / "remuda"), "controller"],
        "class in the cluster file": "remuda",
        "ids": [0, 1, 2, 3],
        "map": [x**2 for x in range(20)],
        "execute": ["42\n"] * 4,
        "found by its file": True,
        "processes that survived the restart": 0,
        "ids after the restart": [4, 5, 6, 7],
    }
    assert user.connection_files() == []


def test_native_engines_start_by_name_too(user):
    seen = user.scenario("native_engines")
    assert seen["ids"] == [0, 1]
    assert (seen["status"], seen["output"]) == (0, "a\nb\nc\n"), seen["errors"]
    assert user.connection_files() == []


def test_functions_of_native_engines_are_called_by_any_view(user):
    user.env["REMUDA_EXAMPLE_ENGINE"] = str(example_engine())
    seen = user.scenario("native_functions")
    errors = seen.pop("errors")
    assert seen == {
        "apply": [2, 2, 3, 7],
        "a NumPy number": [2, 2, 3, 7],
        "map": True,
        "direct": [3, 5],
        "direct map": [[2, 3], [5, 7]],
        "broadcast": [[3, 7]],
        "executor": [7, 11],
        "bytes": {"one": 1000, "two": 2000},
        "a struct": seen["a struct"],
        "beside Python functions": 42,
        "an array": ["ndarray", "uint16", [40, 60], 100],
    }
    assert len(seen["a struct"]) > 1, "a struct is a dict"
    assert "`examples.factor(number: u64) -> Vec<u64>` cannot read its argument" in errors["another type"]
    assert "takes no keyword arguments" in errors["keyword"]
    assert "a `object` cannot be sent" in errors["an object"]
    assert "is a function of native engines" in errors["local"]
    assert "UnmetDependency" in errors["on a Python engine"]


def test_ipcluster_starts_and_stops_it(user):
    user.run("ipcluster", "start", "--controller=remuda", "-n", "2", "--daemonize")
    try:
        (row,) = json.loads(user.run("ipcluster", "list", "-o", "json"))
        assert row["controller"]["class"] == "remuda"
        assert row["controller"]["state"]["state"] == "running"
        assert user.scenario("use_of_default_profile") == {"ids": [0, 1], "pids": 2}
        assert "ipcontroller-client.json" in user.connection_files()
    finally:
        user.run("ipcluster", "stop")
    assert user.connection_files() == []
