#!/usr/bin/env python3
"""Which words do the project's files use, and which of their lines are nearly the same?

Reads every *.rs, *.md, *.py and *.toml file of a source tree, has the engines of a running cluster count words and
find lines that are alike though not equal, and prints two tables. Nothing here knows about Remuda: it is an ordinary
ipyparallel program, and runs the same on any controller.

Start a cluster, in one of two ways:

    remuda controller                   # in one terminal
    ipengine                            # in others, as many as there are cores to use
or
    remuda cluster start -n 4 --engines python

and then

    python examples/python/alike.py [--root FOLDER] [--profile-dir DIR | --profile NAME] [--cluster-id ID]
"""

import argparse
import collections
import sys
import time
from pathlib import Path

import ipyparallel as ipp

SUFFIXES = {".rs", ".md", ".py", ".toml"}
SKIPPED = {"target", ".git", ".venv", "node_modules", "__pycache__"}

# A line is a set of three-letter pieces; two lines are alike when they share at least this part of them.
ALIKE = 0.85
SHORTEST = 50

# Every line gets ROUNDS small hashes, BAND at a time form a key; lines that share a key are compared. The more alike
# two lines are, the more likely they share one: at 0.85, 0.85⁴ a key, which with ten keys misses one pair in 1,500.
ROUNDS, BAND = 40, 4


def survey(name, text, shortest, rounds, band):
    """On an engine: the words of a file, and for each longer line the keys under which it may meet its like."""
    import collections
    import re
    import zlib

    words = collections.Counter(word.lower() for word in re.findall(r"[^\W\d_][\w]{2,}", text))
    lines, keys, hashes = {}, [], {}
    for number, line in enumerate(text.splitlines(), start=1):
        bare = re.sub(r"[\W_]+", " ", line).strip().lower()
        if len(bare) < shortest:
            continue
        lines[number] = line.strip()
        pieces = {bare[i : i + 3] for i in range(len(bare) - 2)}
        for piece in pieces - hashes.keys():
            hashes[piece] = [zlib.crc32(piece.encode(), seed) for seed in range(1, rounds + 1)]
        lows = [min(column) for column in zip(*(hashes[piece] for piece in pieces))]
        for start in range(0, rounds, band):
            key = (start, *lows[start : start + band])
            keys.append((hash(key), name, number))
    return {"name": name, "words": words, "lines": lines, "keys": keys, "length": text.count("\n")}


def compare(pairs, least):
    """On an engine: the pairs of lines that really are alike though not the same, with how much."""
    import functools
    import re

    @functools.cache
    def pieces(line):
        bare = re.sub(r"[\W_]+", " ", line).strip().lower()
        return {bare[i : i + 3] for i in range(len(bare) - 2)}

    alike = []
    for one, other, left, right in pairs:
        a, b = pieces(left), pieces(right)
        part = len(a & b) / len(a | b)
        if least <= part < 1:  # more than blanks and punctuation apart
            alike.append((part, one, other, left, right))
    return alike


def files_of(root):
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root)
        if path.suffix in SUFFIXES and not SKIPPED & set(inside.parts) and path.is_file():
            yield str(inside), path.read_text(errors="replace")


def meetings(surveys):
    """Pairs of lines that share a key, each once."""
    lines = {(survey["name"], number): line for survey in surveys for number, line in survey["lines"].items()}
    met = collections.defaultdict(list)
    for one in surveys:
        for key, name, number in one["keys"]:
            met[key].append((name, number))
    pairs = set()
    for places in met.values():
        # A key that very many lines share is a licence header or a table's rule: equal lines, not near ones.
        distinct = list({lines[place]: place for place in sorted(places, reverse=True)}.values())[:50]
        pairs.update((min(a, b), max(a, b)) for i, a in enumerate(distinct) for b in distinct[:i])
    return [(one, other, lines[one], lines[other]) for one, other in sorted(pairs)]


def table(title, head, rows):
    widths = [max(len(str(row[column])) for row in [head, *rows]) for column in range(len(head))]
    print(f"\n{title}\n")
    for row in [head, ["-" * width for width in widths], *rows]:
        cells = (
            str(cell).rjust(width) if isinstance(cell, int | float) else str(cell).ljust(width)
            for cell, width in zip(row, widths)
        )
        print("  " + "  ".join(cells).rstrip())


def main():
    parser = argparse.ArgumentParser(description="Words and near-duplicate lines of a source tree, on a cluster.")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2], help="the tree to read")
    parser.add_argument("--profile-dir", help="the cluster's profile folder")
    parser.add_argument("--profile", help="or its profile's name")
    parser.add_argument("--cluster-id", default="", help="the cluster's id, if it has one")
    options = parser.parse_args()

    where = {"profile_dir": options.profile_dir} if options.profile_dir else {"profile": options.profile}
    client = ipp.Client(cluster_id=options.cluster_id, **where)
    if not client.ids:
        sys.exit("the cluster has no engines yet: start some with `ipengine`")
    view = client.load_balanced_view()

    files = list(files_of(options.root))
    if not files:
        sys.exit(f"no source files under {options.root}")
    start = time.perf_counter()
    names, texts = zip(*files)
    n = len(files)
    surveys = list(
        view.map_async(survey, names, texts, [SHORTEST] * n, [ROUNDS] * n, [BAND] * n, chunksize=1, ordered=False)
    )
    words = sum((one["words"] for one in surveys), collections.Counter())
    spread = collections.Counter(word for one in surveys for word in one["words"])

    pairs = meetings(surveys)
    parts = [pairs[i : i + 1000] for i in range(0, len(pairs), 1000)]
    found = view.map_async(compare, parts, [ALIKE] * len(parts), chunksize=1, ordered=False) if parts else []
    alike = sorted((pair for part in found for pair in part), reverse=True)
    took = time.perf_counter() - start

    length = sum(one["length"] for one in surveys)
    print(f"{n} files, {length} lines; {n + len(parts)} tasks on {len(client.ids)} engines in {took:.1f} s")
    common = [(word, count, spread[word]) for word, count in words.most_common(15)]
    table("The most common words", ("word", "times", "files"), common)
    rows = []
    for part, one, other, left, right in alike[:15]:
        rows.append((f"{part:.2f}", f"{one[0]}:{one[1]}", left if len(left) < 71 else left[:70] + "…"))
        rows.append(("", f"{other[0]}:{other[1]}", right if len(right) < 71 else right[:70] + "…"))
    table(f"Lines that are alike, not equal: {len(alike)} pairs", ("alike", "where", "line"), rows)


if __name__ == "__main__":
    main()
