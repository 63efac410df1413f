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


def use_of_default_profile():
    """What a program does that finds the cluster of the default profile running."""
    with ipp.Client() as rc:
        rc.wait_for_engines(2, timeout=60)
        return {"ids": rc.ids, "pids": len(set(rc[:].apply_sync(os.getpid)))}


if __name__ == "__main__":
    os.environ["IPP_NONINTERACTIVE"] = "1"
    print(json.dumps(globals()[sys.argv[1]]()))
