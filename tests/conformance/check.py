#!/usr/bin/env python3
"""Runs ipyparallel's own test suite against a controller, and holds the result against the listed exceptions.

    check.py [--client PACKAGE] [--engine COMMAND] RUNNER CONTROLLER [TEST...]

RUNNER is the conformance runner, CONTROLLER the controller's command; TESTs, files of the suite or ids of tests, are those of
`files.txt` unless given. With `--client`, the accelerated client takes the place of ipyparallel's own: `remuda.Client` of the package in that
folder, put there by a plugin of pytest's (`client_plugin`). With `--engine`, that command takes the place of ipyparallel's engine. Exits with 0 if the tests that fail here and pass on the stock controller are those of
`exceptions.txt`, and with a client or an engine also those of `exceptions-client.txt` or `exceptions-engine.txt`, no more and no fewer.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def lines(path: Path) -> list[str]:
    """What is in a list, without comments."""
    stripped = (line.strip() for line in path.read_text().splitlines())
    return [line for line in stripped if line and not line.startswith("#")]


def exceptions(path: Path) -> dict[str, str]:
    """The reason for each excepted test."""
    reasons = {}
    for line in lines(path):
        test, *reason = re.split(r"\s{2,}", line, maxsplit=1)
        if not reason:
            sys.exit(f"error: {path.name} gives no reason for `{test}`")
        reasons[test] = reason[0]
    return reasons


def main() -> int:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--client")
    parser.add_argument("--engine")
    parser.add_argument("runner")
    parser.add_argument("controller")
    parser.add_argument("tests", nargs="*")
    given = parser.parse_args()
    runner, controller, tests = given.runner, given.controller, given.tests
    excepted = exceptions(HERE / "exceptions.txt")
    environment, more = dict(os.environ), []
    if given.client:
        excepted |= exceptions(HERE / "exceptions-client.txt")
        folders = [str(HERE / "client_plugin"), str(Path(given.client).resolve()), environment.get("PYTHONPATH")]
        environment["PYTHONPATH"] = os.pathsep.join(folder for folder in folders if folder)
    if given.engine:
        excepted |= exceptions(HERE / "exceptions-engine.txt")
        more = ["--engine", given.engine]
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        command = [runner, "--controller", controller, *more, "--rerun", "1", "--out", folder, *(tests or lines(HERE / "files.txt"))]
        # Its exit status counts the exceptions as failures.
        subprocess.run(command, check=False, env=environment)
        results = Path(folder, "results.json")
        if not results.exists():
            sys.exit("error: the runner left no results")
        found = json.loads(results.read_text())
    outcomes = found["tests"]
    if not outcomes:
        sys.exit("error: no test ran")
    failed = [test for test, outcome in outcomes.items() if outcome not in ("passed", "skipped") and test not in excepted]
    passed = [test for test in excepted if outcomes.get(test) == "passed"]
    for test in failed:
        print(f"error: {test} {outcomes[test]}, and is no listed exception")
    for test in passed:
        print(f"error: {test} passed: take it out of exceptions.txt ({excepted[test]})")
    if found["left_running"]:
        print(f"error: processes left: {found['left_running']}")
    return 1 if failed or passed or found["left_running"] else 0


if __name__ == "__main__":
    sys.exit(main())
