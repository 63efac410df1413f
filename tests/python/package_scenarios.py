"""What a user of the Python package does, each as a function; run by `test_package.py` in an environment of its own.

    python package_scenarios.py NAME        prints what it saw, as JSON
"""

import json
import os
import subprocess
import sys

import ipyparallel as ipp


def change_one_word():
    """Start, use, restart the engines of, and stop a cluster that differs from any other by `controller="remuda"`."""
    cluster = ipp.Cluster(n=4, controller="remuda")
    rc = cluster.start_and_connect_sync()
    rc[:].activate()
    seen = {
        "controller": cluster.controller.args,
        "class in the cluster file": json.loads(open(cluster.cluster_file).read())["controller"]["class"],
        "ids": rc.ids,
        "map": rc.load_balanced_view().map_sync(lambda x: x**2, range(20)),
        "execute": [
            output["stdout"] for output in rc[:].execute("print(6 * 7)", block=True, silent=False).metadata
        ],
    }
    # As another program would find it, by its file.
    found = ipp.Cluster.from_file(cluster_id=cluster.cluster_id, profile_dir=cluster.profile_dir)
    seen["found by its file"] = found.controller.pid == cluster.controller.pid
    before = set(rc[:].apply_sync(os.getpid))
    cluster.restart_engines_sync()
    rc.wait_for_engines(4)
    after = set(rc[:].apply_sync(os.getpid))
    seen["processes that survived the restart"] = len(before & after)
    seen["ids after the restart"] = rc.ids
    rc.close()
    cluster.stop_cluster_sync()
    return seen


def native_engines():
    """Both halves by name; `remuda map` finds the cluster by the profile, as every command does."""
    from remuda import find_program

    cluster = ipp.Cluster(n=2, controller="remuda", engines="remuda", controller_args=["--hwm=2"])
    rc = cluster.start_and_connect_sync()
    mapped = subprocess.run(
        [find_program(), "map", "--profile-dir", cluster.profile_dir, "--cluster-id", cluster.cluster_id]
        + ["-k", "--", "echo", "{}", ":::", "a", "b", "c"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    seen = {"ids": rc.ids, "output": mapped.stdout, "status": mapped.returncode, "errors": mapped.stderr}
    rc.close()
    cluster.stop_cluster_sync()
    return seen


def native_functions():
    """Functions in Rust, of the example engine that `REMUDA_EXAMPLE_ENGINE` names, by ipyparallel's own views."""
    import numpy as np
    import remuda

    cluster = ipp.Cluster(n=1, controller="remuda")
    rc = cluster.start_and_connect_sync()
    (python,) = rc.ids
    environment = {**os.environ, "IPP_PROFILE_DIR": cluster.profile_dir, "IPP_CLUSTER_ID": cluster.cluster_id}
    engine = subprocess.Popen([os.environ["REMUDA_EXAMPLE_ENGINE"]], env=environment, stdin=subprocess.DEVNULL)
    try:
        rc.wait_for_engines(2, timeout=60)
        (native,) = [number for number in rc.ids if number != python]
        names = ("factor", "count_words", "logistic", "escapes")
        factor, count_words, logistic, escapes = [remuda.function("examples." + name) for name in names]
        view = rc.load_balanced_view()
        text = b"one two two " * 1000
        rows = {"start": 0, "end": 40}
        picture = {"width": 60, "height": 40, "center": [-0.5, 0], "step": 0.05, "limit": 100}
        seen = {
            "apply": view.apply_sync(factor, 84),
            "a NumPy number": view.apply_sync(factor, np.int64(84)),
            "map": view.map_sync(factor, range(60, 64), chunksize=3) == [view.apply_sync(factor, n) for n in range(60, 64)],
            "direct": rc[native].apply_sync(factor, 15),
            "direct map": rc[[native]].map_sync(factor, [6, 35]),
            "broadcast": rc.broadcast_view([native]).apply_sync(factor, 21),
            "executor": rc.executor([native]).submit(factor, 77).result(timeout=60),
            "bytes": view.apply_sync(count_words, text),
            "a struct": sorted(view.apply_sync(logistic, 2.5)),
            "beside Python functions": rc[python].apply_sync(lambda: 6 * 7),
        }
        array = view.apply_sync(escapes, picture, rows)
        seen["an array"] = [type(array).__name__, str(array.dtype), list(array.shape), int(array.max())]
        errors = {}
        for name, call in {
            "another type": lambda: view.apply_sync(factor, "six"),
            "keyword": lambda: view.apply_sync(factor, number=6),
            "an object": lambda: view.apply_sync(factor, object()),
            "local": lambda: factor(6),
            "on a Python engine": lambda: rc[python].apply_sync(factor, 6),
        }.items():
            try:
                errors[name] = f"no error: {call()!r}"
            except Exception as error:
                errors[name] = str(error)
        seen["errors"] = errors
    finally:
        engine.terminate()
        engine.wait()
        rc.close()
        cluster.stop_cluster_sync()
    return seen


def use_of_default_profile():
    """What a program does that finds the cluster of the default profile running."""
    with ipp.Client() as rc:
        rc.wait_for_engines(2, timeout=60)
        return {"ids": rc.ids, "pids": len(set(rc[:].apply_sync(os.getpid)))}


if __name__ == "__main__":
    os.environ["IPP_NONINTERACTIVE"] = "1"
    print(json.dumps(globals()[sys.argv[1]]()))
