#!/usr/bin/env python3
"""Runs ipyparallel's own test suite against a controller, and holds the result against the listed exceptions.

    check.py RUNNER CONTROLLER [TEST...]

RUNNER is the conformance runner, CONTROLLER the controller's command; TESTs, files of the suite or ids of tests, are those of
`files.txt` unless given. Exits with 0 if the tests that fail here and pass on the stock controller are those of
`exceptions.txt`, no more and no fewer.
"""

from __future__ import annotations

import json
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
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    runner, controller, *tests = sys.argv[1:]
    excepted = exceptions(HERE / "exceptions.txt")
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        command = [runner, "--controller", controller, "--rerun", "1", "--out", folder, *(tests or lines(HERE / "files.txt"))]
        # Its exit status counts the exceptions as failures.
        subprocess.run(command, check=False)
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
