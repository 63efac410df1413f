#!/usr/bin/env python3
"""Checks messages made by Remuda with the Session that ipyparallel uses: the golden messages, the other way round.

Reads one sample a line on stdin, in the format of `proto/tests/golden/*.json` (`name`, `packer`, `key`,
`signature_scheme`, `frames`, and if given `idents` and `readable`, which must then agree). Prints `ok NAME` or
`failed NAME: why` for each; exit status 1 if any failed or there was none.

    some-rust-program | "$(tests/python/venv.sh)" tests/python/verify_rust_frames.py
"""

from __future__ import annotations

import base64
import json
import sys

from ipyparallel.util import _disable_session_extract_dates
from jupyter_client.session import Session

# As every process of ipyparallel does: dates stay text.
_disable_session_extract_dates()


def verify(sample):
    """Raises ValueError, or whatever the Session raises, if the sample is not what it says."""
    session = Session(
        key=sample["key"].encode(),
        packer=sample["packer"],
        unpacker=sample["packer"],
        signature_scheme=sample.get("signature_scheme", "hmac-sha256"),
    )
    frames = [base64.b64decode(frame, validate=True) for frame in sample["frames"]]
    idents, rest = session.feed_identities(frames)
    if not session.key and rest[0]:
        raise ValueError("signed without a key")
    message = session.deserialize(rest, content=True)
    for field in ("msg_id", "msg_type", "session", "username", "date", "version"):
        if not isinstance(message["header"].get(field), str):
            raise ValueError(f"header without `{field}`")
    if "idents" in sample and len(idents) != sample["idents"]:
        raise ValueError(f"{len(idents)} identities, not {sample['idents']}")
    for part, expected in sample.get("readable", {}).items():
        if message[part] != expected:
            raise ValueError(f"{part} is {message[part]}, not {expected}")


def main():
    count = failed = 0
    for line in sys.stdin:
        if not line.strip():
            continue
        count += 1
        name = f"line {count}"
        try:
            sample = json.loads(line)
            name = sample["name"]
            verify(sample)
            print(f"ok {name}")
        except Exception as error:  # noqa: BLE001 - every way to be wrong is a failed sample
            failed += 1
            print(f"failed {name}: {type(error).__name__}: {error}")
    if not count:
        print("failed: no samples on stdin", file=sys.stderr)
    return 1 if failed or not count else 0


if __name__ == "__main__":
    sys.exit(main())
