"""Launchers with which ipyparallel starts Remuda's controller and engines on this machine.

pip registers them under the name `remuda` (entry points `ipyparallel.controller_launchers` and
`ipyparallel.engine_launchers`), so nobody needs to import this module:

    ipyparallel.Cluster(n=4, controller="remuda")          # Remuda's controller, Python engines
    ipyparallel.Cluster(n=4, controller="remuda", engines="remuda")   # and native engines, which run programs
    ipcluster start -n 4 --controller=remuda

They differ from ipyparallel's local launchers in the command alone. To start Remuda through another launcher, give that
one the command: `c.SlurmControllerLauncher.controller_cmd = ["remuda", "controller"]`.
"""

from __future__ import annotations

from ipyparallel.cluster.launcher import LocalControllerLauncher, LocalEngineSetLauncher
from traitlets import default

from remuda import find_program

__all__ = ["RemudaControllerLauncher", "RemudaEngineSetLauncher"]


class RemudaControllerLauncher(LocalControllerLauncher):
    """Starts `remuda controller` as a process of this machine.

    It is told the profile and the cluster's id as ipyparallel's own controller is, by `IPP_PROFILE_DIR` and
    `IPP_CLUSTER_ID`, and takes the same options (`Cluster.controller_args`).
    """

    # Cluster files name launchers by this; without it they would hold a class path that cannot be loaded again.
    entrypoint_name = "remuda"

    @default("controller_cmd")
    def _controller_cmd_default(self) -> list[str]:
        return [find_program(), "controller"]


class RemudaEngineSetLauncher(LocalEngineSetLauncher):
    """Starts `remuda engine`s as processes of this machine.

    They run programs, not Python functions: a function that is sent to one is answered with an error.
    """

    entrypoint_name = "remuda"

    @default("engine_cmd")
    def _engine_cmd_default(self) -> list[str]:
        # `n` says how much runs at once.
        return [find_program(), "engine", "--slots", "1"]
