"""The Remuda cluster, as a Python package.

The package carries the program `remuda` (also `python -m remuda`) and launchers for ipyparallel, so that

    ipyparallel.Cluster(controller="remuda")

starts Remuda's controller in the place of ipyparallel's own. Clients, views and engines stay ipyparallel's.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path
from typing import Any

from remuda._function import NativeFunction, function
from remuda._options import options

__all__ = ["Client", "NativeFunction", "__version__", "find_program", "function", "options"]

__version__ = version("remuda")


def __getattr__(name: str) -> Any:
    # Whoever only wants the program need not have ipyparallel.
    if name == "Client":
        from remuda._client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def find_program() -> str:
    """The path of the program `remuda` that was installed with this package.

    Raises `FileNotFoundError` if it is not where pip puts programs.
    """
    name = "remuda" + (sysconfig.get_config_var("EXE") or "")
    folders = [
        sysconfig.get_path("scripts"),
        # pip install --user
        sysconfig.get_path("scripts", scheme=_user_scheme()),
        # pip install --target: programs are beside the package
        str(Path(__file__).resolve().parent.parent / "bin"),
    ]
    for folder in folders:
        program = os.path.join(folder, name)
        if os.path.isfile(program):
            return program
    raise FileNotFoundError(
        f"the program `{name}` is in none of {', '.join(folders)}; install it again: {sys.executable} -m pip install "
        "--force-reinstall remuda"
    )


def _user_scheme() -> str:
    if sys.version_info >= (3, 10):
        return sysconfig.get_preferred_scheme("user")
    return "posix_user"
