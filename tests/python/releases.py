#!/usr/bin/env python3
"""Which releases of ipyparallel work with remuda? For each: its client and its engines, then each of them with today's.

    "$(tests/python/venv.sh)" tests/python/releases.py 8.0.0 8.8.0 9.2.0

Each release goes into a virtual environment that is thrown away, with whatever its dependencies are today, and a line of the
table in docs/releases.md is printed for it. `--python python3.10` makes the environments with another Python (the oldest
releases cannot send functions of Python 3.11 and newer), `--with "ipykernel<7"` adds a requirement. Exits with 1 if something
did not work. Needs the package index; not part of tests/run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import HERE, Cluster

ENGINES = 2
TODAY = "9.2.0"


def install(folder, interpreter, release, more=()):
    """The Python of a new environment with the release, or the reason why there is none."""
    subprocess.run([interpreter, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"ipyparallel=={release}", *more],
        capture_output=True,
        text=True,
    )
    return (python, None) if done.returncode == 0 else (None, done.stderr.strip().splitlines()[-1])


def attempt(folder, client, engine):
    """What works of `basics.py`, with a client and engines of these Pythons."""
    with Cluster(folder, "remuda") as cluster:
        cluster.start_controller()
        for _ in range(ENGINES):
            cluster.start("engine", [engine, "-m", "ipyparallel.engine", f"--profile-dir={cluster.profile_dir}"])
        try:
            cluster.wait_for_engines(ENGINES)
            done = subprocess.run(
                [client, HERE / "basics.py", cluster.file("client"), str(ENGINES)],
                capture_output=True,
                text=True,
                env=cluster.env,
                cwd=cluster.work,
                timeout=300,
            )
        except (AssertionError, subprocess.TimeoutExpired) as error:
            return {"start": str(error).strip().splitlines()[-1]}
    if done.returncode:
        return {"start": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def summary(found):
    """One cell of the table."""
    wrong = [f"{what}: {outcome}" for what, outcome in found.items() if outcome not in ("works", "the release has none")]
    none = [what for what, outcome in found.items() if outcome == "the release has none"]
    return "; ".join(wrong) or ("works" + (f" (no {', '.join(none)})" if none else ""))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("releases", nargs="+")
    parser.add_argument("--python", default=sys.executable, help="what to make the environments with (default: this one)")
    parser.add_argument("--with", dest="more", action="append", default=[], help="one more requirement, `ipykernel<7` say")
    options = parser.parse_args()
    fine = True
    with tempfile.TemporaryDirectory(prefix="ipyparallel-releases-") as folder:
        folder = Path(folder)
        today, reason = install(folder / "today", options.python, TODAY)
        if today is None:
            sys.exit(f"error: ipyparallel {TODAY} cannot be installed: {reason}")
        for release in options.releases:
            python, reason = install(folder / release / "environment", options.python, release, options.more)
            if python is None:
                cells = [f"cannot be installed: {reason}"] * 3
            else:
                pairs = [(python, python), (python, today), (today, python)]
                cells = [summary(attempt(folder / release / str(number), *pair)) for number, pair in enumerate(pairs)]
            fine &= all(cell.startswith("works") for cell in cells)
            print(f"| {' | '.join([release, *cells])} |", flush=True)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
