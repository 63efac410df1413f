"""Kills the controller again and again while an ordinary ipyparallel script works, and checks that the script notices nothing.

    python examples/python/survive.py --remuda target/release/remuda
    python examples/python/survive.py --durability async --kills 20 --tasks 5000 --engines 4

The script that works is `work` below: plain ipyparallel, as anybody would write it. What is around it starts a controller and stock
engines in a folder of their own, kills the controller (SIGKILL) at random moments, and starts the same command again each time.

The exit status is 0 if every result came, once, and was right, and, with --durability=sync, no dependency was violated. `stale` counts the
tasks whose replies came more than once. `early` are tasks that began before one that they waited for had ended for the last time: with
--durability=async, one that ended in the last 100 ms before a kill may run again, after others that waited for it have begun.

Tasks that are on their way to the controller when it dies are lost, and their client does not know: so it is killed once all
are on record, unless --from-start is given.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path


def value(number, seconds, marker=None):
    """One task: takes its time, and fails the first time if there is a place to note that."""
    import os
    import time

    time.sleep(seconds)
    if marker is not None:
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass
        else:
            raise RuntimeError(f"task {number} fails the first time")
    return number * number


def work(profile_dir, count, seed, notes):
    """The user's script: tasks of mixed length, some after others, some that fail at first."""
    import ipyparallel

    rc = ipyparallel.Client(profile_dir=profile_dir, timeout=60)
    rc.wait_for_engines(1, timeout=60)
    answers = {}
    counted = rc._queue_handlers["apply_reply"]

    def count_replies(message):
        parent = message["parent_header"]["msg_id"]
        answers[parent] = answers.get(parent, 0) + 1
        counted(message)

    rc._queue_handlers["apply_reply"] = count_replies
    view = rc.load_balanced_view()
    dice = random.Random(seed)
    results, after = [], {}
    for number in range(count):
        flags, marker = {}, None
        if number % 10 == 9:
            after[number] = dice.sample(range(max(0, number - 200), number), 3)
            flags["after"] = [results[other] for other in after[number]]
        if number % 7 == 3:
            flags["retries"] = 5
            marker = os.path.join(notes, f"failed-{number}")
        seconds = dice.choice((0.0, 0.001, 0.002, 0.01, 0.03))
        with view.temp_flags(**flags):
            results.append(view.apply_async(value, number, seconds, marker))
    say("submitted", count=count)
    wrong, failed = [], []
    for number, result in enumerate(results):
        try:
            if result.get() != number * number:
                wrong.append(number)
        except Exception as error:
            failed.append(f"{number}: {error!r}")
    early = [
        number
        for number, others in after.items()
        if any(results[number].started < results[other].completed for other in others)
    ]
    twice = sum(number > 1 for number in answers.values())
    say("done", wrong=wrong, failed=failed, early=early, stale=twice, answered=len(answers))


def say(event, **what):
    """Tells the process around this one, which reads a line of JSON each."""
    print(json.dumps({"event": event, **what}), flush=True)


class Cluster:
    """A controller that can be killed and started again, and engines that nobody touches."""

    def __init__(self, options, folder):
        self.folder = folder
        self.log = open(folder / "log.txt", "ab")
        self.command = [
            options.remuda, "controller", "--profile-dir", folder, "--db=sqlite", "--durability", options.durability, *options.controller_arg,
        ]  # fmt: skip
        self.controller = None
        self.start_controller()
        connection = folder / "security" / "ipcontroller-engine.json"
        until(connection.exists, "the connection file")
        engine = [sys.executable, "-m", "ipyparallel.engine", "--profile-dir", folder]
        self.engines = [self.run(engine) for _ in range(options.engines)]

    def run(self, command):
        command = [str(word) for word in command]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True)

    def start_controller(self):
        self.controller = self.run(self.command)

    def kill_controller(self):
        self.controller.send_signal(signal.SIGKILL)
        self.controller.wait()

    def on_record(self):
        """How many tasks the database has."""
        database = sqlite3.connect(f"file:{self.folder / 'tasks.db'}?mode=ro", uri=True)
        try:
            return database.execute('SELECT count(*) FROM "ipython-tasks"').fetchone()[0]
        finally:
            database.close()

    def end(self):
        for process in [*self.engines, self.controller]:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        self.log.close()


def until(condition, what, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"waited {seconds:g} s for {what}")
        time.sleep(0.01)


def survive(options, folder):
    """Runs the script, and kills the controller meanwhile: what the script said, and how often the controller died."""
    cluster = Cluster(options, folder)
    dice = random.Random(options.seed)
    notes = folder / "notes"
    notes.mkdir()
    words = [
        sys.executable, __file__, "--work", folder, "--tasks", options.tasks, "--seed", options.seed, "--notes", notes,
    ]  # fmt: skip
    started = time.monotonic()
    script = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True)
    kills, said = 0, None
    try:
        told = queue.SimpleQueue()
        threading.Thread(target=lambda: [told.put(line) for line in script.stdout], daemon=True).start()
        next_kill = None
        while said is None:
            if time.monotonic() - started > options.patience:
                break
            while not told.empty():
                line = told.get()
                if not line.startswith('{"event"'):
                    print(line, end="", file=sys.stderr)
                    continue
                event = json.loads(line)
                if event["event"] == "submitted" or (options.from_start and next_kill is None):
                    print(f"{time.monotonic() - started:6.1f} s  {event['event']}", file=sys.stderr)
                    if not options.from_start:
                        until(lambda: cluster.on_record() >= options.tasks, "all tasks to be on record")
                    next_kill = time.monotonic() + dice.uniform(0, options.pause)
                elif event["event"] == "done":
                    said = event
            if script.poll() is not None and said is None:
                raise SystemExit(f"the script ended with status {script.returncode}; see {folder}/log.txt")
            if options.from_start and next_kill is None:
                next_kill = time.monotonic() + 2.0
            if next_kill is not None and kills < options.kills and time.monotonic() >= next_kill:
                cluster.kill_controller()
                kills += 1
                print(f"{time.monotonic() - started:6.1f} s  killed, {kills} of {options.kills}", file=sys.stderr)
                cluster.start_controller()
                next_kill = time.monotonic() + dice.uniform(0.1, 2 * options.pause)
            time.sleep(0.005)
    finally:
        script.kill()
        script.wait()
        cluster.end()
    return said, kills, time.monotonic() - started


def main():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--remuda", default=shutil.which("remuda"), help="the program (default: the one on the path)")
    words.add_argument("--durability", default="sync", choices=("async", "sync"))
    words.add_argument("--tasks", type=int, default=5000)
    words.add_argument("--engines", type=int, default=4)
    words.add_argument("--kills", type=int, default=20)
    words.add_argument("--pause", type=float, default=1.0, help="seconds between two kills, on average")
    words.add_argument("--from-start", action="store_true", help="kill while tasks are being submitted, too")
    words.add_argument("--patience", type=float, default=600.0, help="seconds after which the script counts as hung")
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--controller-arg", action="append", default=[], help="a further argument for the controller")
    words.add_argument("--work", help=argparse.SUPPRESS)
    words.add_argument("--notes", help=argparse.SUPPRESS)
    options = words.parse_args()
    if options.work:
        return work(options.work, options.tasks, options.seed, options.notes)
    if not options.remuda:
        words.error("no `remuda` on the path: name one with --remuda")
    folder = Path(tempfile.mkdtemp(prefix="survive-"))
    said, kills, seconds = survive(options, folder)
    summary = {"durability": options.durability, "tasks": options.tasks, "kills": kills, "seconds": round(seconds, 1)}
    if said is None:
        print(json.dumps({**summary, "hung": True, "folder": str(folder)}))
        return 1
    print(json.dumps({**summary, **{key: value for key, value in said.items() if key != "event"}}))
    faults = ["wrong", "failed", "stale", *(["early"] if options.durability == "sync" else [])]
    good = not any(said[fault] for fault in faults) and said["answered"] == options.tasks
    if good:
        shutil.rmtree(folder)
    else:
        print(f"what the processes said: {folder}/log.txt", file=sys.stderr)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
