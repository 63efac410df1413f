#!/usr/bin/env python3
"""Throws rubbish at every socket of a running controller.

    garbage.py CONNECTION_DIR [--seconds N] [--rate N] [--seed N] [--spare CHANNEL ...]

CONNECTION_DIR holds `ipcontroller-client.json` and `ipcontroller-engine.json`. What is sent is of three sorts: what
anybody on the network can send (frames that are no message, messages without a signature or with a wrong one, bytes
that are not even ZeroMQ), what a listener can send (whole messages again), and what somebody with the key can
send (signed, but no JSON, or not what is expected). Never sent is what a correct controller has to hand to an
engine: only the engines' own robustness would be tried.

Prints `throwing` when it begins. Ends by itself, or at SIGTERM or SIGINT; then prints how often each sort was sent, as
one line of JSON.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import signal
import socket
import sys
import time
from pathlib import Path

import zmq
from jupyter_client.session import DELIM, Session

HUGE = 16 * 1024 * 1024

# Channel → whether the controller's socket there reads. PUB sockets read subscriptions only.
CHANNELS = {
    "client": {
        "registration": True,
        "control": True,
        "mux": True,
        "task": True,
        "broadcast": True,
        "notification": False,
        "iopub": False,
    },
    "engine": {
        "control": True,
        "mux": True,
        "task": True,
        "broadcast": True,
        "iopub": True,
        "hb_pong": True,
        "hb_ping": False,
    },
}


class Garbage:
    def __init__(self, folder, seed, spare=()):
        self.random = random.Random(seed)
        self.sent = collections.Counter()
        self.files = {
            role: json.loads((Path(folder) / f"ipcontroller-{role}.json").read_text()) for role in ("client", "engine")
        }
        info = self.files["client"]
        options = {"packer": info["pack"], "unpacker": info["unpack"], "signature_scheme": info["signature_scheme"]}
        self.session = Session(key=info["key"].encode(), **options)
        self.forger = Session(key=b"somebody-elses-key", **options)
        self.context = zmq.Context()
        self.context.linger = 0
        self.readers, self.writers = [], []
        for role, channels in CHANNELS.items():
            for channel, reads in channels.items():
                if channel in spare:
                    continue
                ports = self.files[role][channel]
                for port in ports if isinstance(ports, list) else [ports]:
                    address = self.files[role]["interface"].partition("://")[2], port
                    (self.readers if reads else self.writers).append((role, channel, address))
        self.sockets = {place: self.connect(place) for place in self.readers + self.writers}

    def connect(self, place):
        _, channel, (host, port) = place
        if place in self.writers:
            kind = zmq.XSUB
        elif channel == "iopub":
            kind = zmq.PUB
        else:
            kind = zmq.DEALER
        sock = self.context.socket(kind)
        sock.sndhwm = 100
        sock.connect(f"tcp://{host}:{port}")
        return sock

    # -- what to send: frames, or None if it does not apply at `place`

    def short(self, place):
        return self.random.choice([[b""], [DELIM], [DELIM, b""], [b"", b"", b""], [b"x" * 5, DELIM, b"s", b"{}"]])

    def no_delimiter(self, place):
        return [self.random.randbytes(self.random.randrange(40)) for _ in range(self.random.randrange(1, 12))]

    def many_frames(self, place):
        return [b"i"] * 2000 + [DELIM] + [b""] * 2000

    def huge(self, place):
        return [b"nobody", DELIM, b"", b"{}", b"{}", b"{}", b"x" * HUGE]

    def message(self, session, place, msg_type=None, content=None, metadata=None):
        """A whole message for nobody: an engine that does not exist, where one is named."""
        _, channel, _ = place
        msg_type = msg_type or ("registration_request" if channel == "registration" else "apply_request")
        message = session.msg(msg_type, content=content or {}, metadata=metadata)
        ident = [b"nobody"] if channel in ("mux", "control", "iopub") else None
        return session.serialize(message, ident=ident) + [b"\x80\x04N."] * 2

    def unsigned(self, place):
        frames = self.message(self.session, place)
        frames[frames.index(DELIM) + 1] = b""
        return frames

    def wrongly_signed(self, place):
        return self.message(self.forger, place)

    def half_signature(self, place):
        frames = self.message(self.session, place)
        at = frames.index(DELIM) + 1
        frames[at] = frames[at][:32]
        return frames

    def changed_after_signing(self, place):
        frames = self.message(self.session, place)
        frames[frames.index(DELIM) + 5] = b'{"status": "ok", "id": 0, "uuid": "changed"}'
        return frames

    def replayed(self, place):
        """A good query, several times over: answered once at most."""
        if place[1] != "registration":
            return None
        frames = self.message(self.session, place, "history_request")
        for _ in range(3):
            self.put(place, frames)
        return frames

    def signed_nonsense(self, place):
        """The key is right, the bytes are not."""
        if place[0] == "client" and place[1] == "task":
            # Of those, dependencies and targets that are no such thing; the rest would be a task all the same.
            return self.message(self.session, place, metadata=self.bad_options())
        choices = [b"", b"{", b"nul", b"[]", b"3", b'"x"', b"\xff\xfe", b"[" * 5000, b'{"msg_id": 3}', b'{"a": NaN}']
        parts = [self.random.choice(choices) for _ in range(4)]
        return [b"nobody", DELIM, self.session.sign(parts), *parts]

    def bad_options(self):
        nobody = ["11111111-222222222222333333333333"]
        return self.random.choice(
            [
                {"targets": nobody, "after": [1, {}]},
                {"targets": nobody, "follow": {"dependencies": 3}},
                {"targets": nobody, "timeout": "soon"},
                {"targets": nobody, "retries": -1},
                {"targets": nobody, "retries": [2]},
                {"targets": nobody},
                {"targets": 3},
                {"after": ["never-submitted"]},
            ]
        )

    def unknown_type(self, place):
        if place[1] != "registration":
            return None
        return self.message(self.session, place, self.random.choice(["foo_request", "", "hub_error", "é" * 99]))

    def bad_query(self, place):
        if place[1] != "registration":
            return None
        queries = {
            "queue_request": [{}, {"targets": [], "verbose": 3}, {"targets": {"a": 1}}, {"targets": ["x", 1e300]}],
            "result_request": [{}, {"msg_ids": None}, {"msg_ids": [1, {}]}, {"msg_ids": ["x"] * 5000}],
            "db_request": [{}, {"query": 1}, {"query": {"msg_id": {"$foo": 1}}}, {"query": {"x": {"$glob": "["}}}],
            "purge_request": [{}, {"msg_ids": ["x"]}, {"msg_ids": 3, "engine_ids": "x"}],
            "resubmit_request": [{}, {"msg_ids": ["x"]}],
            "registration_request": [{}, {"uuid": 3}, {"uuid": None}],
            "unregistration_request": [{}, {"id": "x"}, {"id": -1}, {"id": 10**30}],
        }
        msg_type = self.random.choice(list(queries))
        return self.message(self.session, place, msg_type, content=self.random.choice(queries[msg_type]))

    def stray_reply(self, place):
        """From an engine that nobody knows, about a task that nobody sent."""
        if place[0] != "engine" or place[1] == "hb_pong":
            return None
        parent = self.session.msg("apply_request")["header"]
        message = self.session.msg("apply_reply", {"status": "ok"}, parent=parent, metadata={"status": "ok"})
        return self.session.serialize(message, ident=[b"nobody"]) + [b"\x80\x04N."]

    def raw_bytes(self, place):
        """Not even ZeroMQ."""
        try:
            with socket.create_connection(place[2], timeout=2) as sock:
                greeting = bytes.fromhex("ff00000000000000017f03004e554c4c") if self.random.random() < 0.5 else b""
                sock.sendall(greeting + self.random.randbytes(self.random.randrange(1, 2000)))
        except OSError:
            pass
        return None

    SORTS = [
        (short, 10),
        (no_delimiter, 10),
        (many_frames, 1),
        (huge, 0.1),
        (unsigned, 10),
        (wrongly_signed, 10),
        (half_signature, 5),
        (changed_after_signing, 10),
        (replayed, 20),
        (signed_nonsense, 10),
        (unknown_type, 20),
        (bad_query, 40),
        (stray_reply, 10),
        (raw_bytes, 3),
    ]

    def put(self, place, frames):
        try:
            self.sockets[place].send_multipart(frames, zmq.DONTWAIT)
            return True
        except zmq.Again:
            return False

    def once(self):
        """One piece of rubbish, somewhere."""
        sort = self.random.choices([sort for sort, _ in self.SORTS], [weight for _, weight in self.SORTS])[0]
        if self.random.random() < 0.05:
            place = self.random.choice(self.writers)
            self.sockets[place].send(self.random.choice([b"\x01", b"\x00", b"\x02", b""]) + self.random.randbytes(9))
            self.sent["subscriptions"] += 1
            return
        place = self.random.choice(self.readers)
        frames = sort(self, place)
        if frames is None:
            if sort is Garbage.raw_bytes:
                self.sent["raw_bytes"] += 1
        elif self.put(place, frames):
            self.sent[sort.__name__] += 1
        # Nobody else reads the answers.
        sock = self.sockets[place]
        if sock.type == zmq.DEALER:
            while sock.poll(0):
                sock.recv_multipart()

    def close(self):
        self.context.destroy(linger=0)


def main():
    parser = argparse.ArgumentParser(description="Throws rubbish at every socket of a running controller.")
    parser.add_argument("connection_dir", help="where ipcontroller-client.json and ipcontroller-engine.json are")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long (default 10)")
    parser.add_argument("--rate", type=float, default=1000.0, help="pieces a second, at most (default 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the random choices (default 0)")
    parser.add_argument("--spare", action="append", default=[], metavar="CHANNEL", help="leave a channel alone")
    options = parser.parse_args()

    ended = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.append(True))
    garbage = Garbage(options.connection_dir, options.seed, options.spare)
    print("throwing", flush=True)
    start = time.monotonic()
    count = 0
    while not ended and time.monotonic() < start + options.seconds:
        garbage.once()
        count += 1
        ahead = start + count / options.rate - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
    print(json.dumps(dict(sorted(garbage.sent.items()))))
    garbage.close()


if __name__ == "__main__":
    sys.exit(main())
