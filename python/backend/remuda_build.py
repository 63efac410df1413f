"""Builds the wheel: maturin packs the program, and this the Rust module of the client beside it.

maturin builds one kind of thing at a time, programs or a module. So the module is built by cargo and laid into the package, from where maturin
takes it as one more file; the wheel then fits every Python, and on those older than 3.11, which cannot load the module, the client takes
ipyparallel's own way. `MATURIN_PEP517_ARGS="--profile dev"` holds for both.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import maturin
from maturin import (  # noqa: F401
    build_sdist,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_wheel,
)

HERE = Path(__file__).resolve().parents[1]
CRATE = HERE / "core" / "Cargo.toml"
MODULE = HERE / "src" / "remuda" / "_core.abi3.so"


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    build_module()
    return maturin.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    build_module()
    return maturin.build_editable(wheel_directory, config_settings, metadata_directory)


get_requires_for_build_editable = getattr(maturin, "get_requires_for_build_editable", get_requires_for_build_wheel)


def profile() -> str:
    """The cargo profile that maturin is told to build with."""
    args = shlex.split(os.environ.get("MATURIN_PEP517_ARGS", ""))
    for at, arg in enumerate(args):
        if arg == "--profile":
            return args[at + 1]
        if arg.startswith("--profile="):
            return arg.partition("=")[2]
    return "release"


def build_module() -> None:
    """Builds the module, and lays it into the package."""
    if not CRATE.exists():
        sys.exit(f"{CRATE} is missing: the wheel is built from a checkout, `pip install ./python` in its top folder")
    command = ["cargo", "build", "--locked", "--manifest-path", str(CRATE), "--profile", profile()]
    command += ["--message-format", "json-render-diagnostics"]
    built = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    for line in built.splitlines():
        said = json.loads(line)
        if said.get("reason") == "compiler-artifact" and said["target"]["name"] == "_core":
            module = next(Path(name) for name in said["filenames"] if name.endswith((".so", ".dylib")))
    MODULE.unlink(missing_ok=True)
    shutil.copyfile(module, MODULE)
