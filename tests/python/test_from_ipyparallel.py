"""docs/from-ipyparallel.md: a row for each public name of ipyparallel's client, and no Rust name that is not there."""

from __future__ import annotations

import inspect
import re
import subprocess
from functools import cache
from pathlib import Path

import ipyparallel as ipp
from harness import remuda_binary
from ipyparallel.client.magics import ParallelMagics

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "from-ipyparallel.md"

#: Classes whose members have rows of their own; the others have one row each.
CLASSES = [
    ipp.Client,
    ipp.DirectView,
    ipp.LoadBalancedView,
    ipp.BroadcastView,
    ipp.AsyncResult,
    ipp.AsyncMapResult,
    ipp.AsyncHubResult,
    ipp.ViewExecutor,
    ipp.RemoteFunction,
    ipp.ParallelFunction,
    ipp.Dependency,
    ipp.dependent,
    ipp.Reference,
    ipp.RemoteError,
    ipp.CompositeError,
    ipp.Cluster,
]
#: Classes whose rows are those of their members.
NO_NAMES = {
    "AsyncResult", "AsyncMapResult", "AsyncHubResult", "Client", "Cluster",
    "DirectView", "LoadBalancedView", "BroadcastView",
}  # fmt: skip
#: Words in backticks that are Rust's or another crate's, and not ours.
FOREIGN = re.compile(r"^(std|tokio|futures)::|^(Ok|Err|Some)\b|^T$|^\.")


def rows():
    """(Python name, what stands beside it) of each row of the tables."""
    for line in GUIDE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 2:
            yield cells[0].strip("`"), cells[1]


def members(cls):
    """The public names of a class that are not those of what it is made of."""
    made_of = ("builtins", "traitlets", "IPython")
    for name in dir(cls):
        owner = next((base for base in cls.__mro__ if name in vars(base)), None)
        if not name.startswith("_") and owner and not owner.__module__.startswith(made_of):
            yield f"{cls.__name__}.{name}"


def public_names():
    names = {
        name
        for name, value in vars(ipp).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name not in NO_NAMES
    }
    for cls in CLASSES:
        names.update(members(cls))
    return names


def test_each_public_name_has_one_row():
    named = [name for name, _ in rows() if not name.startswith("%") and name != "Client()"]
    assert len(named) > 300
    assert sorted(set(named)) == sorted(named), "a name has two rows"
    names = public_names()
    # `from ipyparallel import *` of a later Python has names that an earlier one lacks, of futures.
    futures = {name for name in names if name.split(".")[0].startswith("Async")}
    assert not names - set(named), "without a row"
    assert not set(named) - names - futures, "no such name in ipyparallel"


def test_each_magic_has_a_row():
    magics = ParallelMagics(shell=None, view=None).magics
    wanted = {f"%{name}" for name in magics["line"]} | {f"%%{name}" for name in magics["cell"]}
    assert {name for name, _ in rows() if name.startswith("%")} == wanted


def test_each_row_says_what_to_do_or_why_there_is_nothing():
    wrong = [
        name
        for name, instead in rows()
        if not re.search(r"`[^`]+`", instead)
        and not re.match(r"left out: \w+|the same|drop the |await |options of |keep the |a clone ", instead)
    ]
    assert not wrong


@cache
def rust_names():
    """`Type` and `Type::name` of all that is public in the libraries: methods, fields, variants, macros."""
    names = {"functions!"}
    crates = [ROOT / crate / "src" for crate in ("client", "engine", "proto", "cluster")]
    for file in [file for crate in crates for file in crate.rglob("*.rs")]:
        text = re.sub(r"//[^\n]*", "", file.read_text().split("#[cfg(test)]\nmod tests")[0])
        blocks = r"^(?:pub )?(impl|struct|enum|trait)\b(<[^{;]*?>)?([^{;]*)\{\n(.*?)^\}"
        for kind, _, head, body in re.findall(blocks, text, re.S | re.M):
            owner = re.search(r"(?:\bfor\s+)?(\w+)[^{]*$", head.split(" where")[0].split(" for ")[-1].strip())
            if not owner:
                continue
            owner = owner.group(1)
            found = re.findall(r"^    (?:pub )?(?:const )?(?:async )?fn (\w+)", body, re.M)
            found += re.findall(r"^    pub (\w+):", body, re.M) if kind == "struct" else []
            found += re.findall(r"^    (\w+)", body, re.M) if kind == "enum" else []
            names.update(f"{owner}::{name}" for name in found)
        names.update(re.findall(r"^pub (?:struct|enum|trait) (\w+)", text, re.M))
    return names


def test_each_rust_name_is_there():
    missing = set()
    for python, instead in rows():
        owner = None
        for word in re.findall(r"`([^`]+)`", instead):
            word = re.sub(r"\([^)]*\)$|<T>$", "", word).removeprefix("blocking::")
            # `its field x` is of the type that the row's name says.
            if re.fullmatch(r"[a-z_]+", word) and f"field `{word}`" in instead:
                owner = owner or python.split(".")[0].replace("CompositeError", "MapFailure")
                word = f"{owner}::{word}"
            elif re.match(r"[A-Z]\w*$", word):
                owner = word
            if FOREIGN.match(word) or not re.match(r"[A-Z]\w*(::\w+)?$|\w+!$", word):
                continue
            if word not in rust_names():
                missing.add((python, word))
    assert not missing


def test_each_command_is_there():
    asked = {}

    def help_of(*words):
        if words not in asked:
            command = [remuda_binary(), *words, "--help"]
            asked[words] = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
        return asked[words]

    start = help_of("cluster", "start").stdout
    for python, instead in rows():
        for word in re.findall(r"`([^`]+)`", instead):
            flags = re.findall(r"(?<![\w=-])--?[a-z][a-z-]*", word)
            if word.startswith("remuda "):
                words = [part for part in word.split()[1:] if re.fullmatch(r"[a-z]+", part)]
                told = help_of(*words)
                assert told.returncode == 0, (python, word, told.stderr)
                assert all(flag in told.stdout for flag in flags if flag != "--version"), (python, word)
            elif word.startswith("--"):
                assert flags, (python, word)
                assert all(re.search(rf"{flag}\b", start) for flag in flags), (python, word)
