"""A relay between a stock client and a controller that keeps a copy of every message.

The client connects by a connection file that names the relay's ports; frames pass untouched, so neither end can tell.
Each socket of the client becomes a DEALER of its own towards the controller, as if the client had connected there.
"""

from __future__ import annotations

import json
import threading
import time

import zmq
from harness import DEADLINE, Hung
from jupyter_client.session import Session

ASKING = ("registration", "control", "mux", "task", "broadcast")
HEARING = ("notification", "iopub")


class Message:
    """One recorded message, signature checked. `step` is what the script did when its request was sent."""

    def __init__(self, channel, step, message, asked):
        self.channel = channel
        self.step = step
        # The id of the client's request that this answers, if any: the parent's, or what a broadcast made of it.
        self.asked = asked
        self.type = message["msg_type"]
        self.header = dict(message["header"])
        self.parent = message["parent_header"].get("msg_id")
        self.parent_header = dict(message["parent_header"])
        self.metadata = message["metadata"]
        self.content = message["content"]
        self.buffers = [bytes(buffer) for buffer in message["buffers"]]

    @property
    def id(self):
        return self.header["msg_id"]


class Recorder:
    """Relays between `connection()`, for the client, and the controller of `connection`."""

    def __init__(self, connection):
        self.real = connection
        self.context = zmq.Context()
        self.context.linger = 0
        self.session = Session(
            key=connection["key"].encode(),
            packer=connection["pack"],
            unpacker=connection["unpack"],
            signature_scheme=connection["signature_scheme"],
            check_pid=False,
            # Every message is read twice, as a request and as what it is: no replay here.
            digest_history_size=0,
        )
        self.lock = threading.Lock()
        self.step = "start"
        self.requests = []
        self.replies = []
        self.heard = []
        self.steps_of = {}
        self.problems = []
        self.ending = self.context.socket(zmq.PAIR)
        self.ending.bind("inproc://ending")
        self.poller = zmq.Poller()
        self.ports = {}
        self.fronts = {}
        self.backs = {}
        self.routes = {}
        for channel in ASKING:
            self.fronts[channel] = self._bound(channel, zmq.ROUTER)
            self.poller.register(self.fronts[channel], zmq.POLLIN)
        for channel in HEARING:
            self.fronts[channel] = self._bound(channel, zmq.PUB)
            back = self.context.socket(zmq.SUB)
            back.rcvhwm = 0
            back.subscribe(b"")
            back.connect(self._real_url(channel))
            self.backs[back] = (channel, None)
            self.poller.register(back, zmq.POLLIN)
        self.thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self.thread.start()

    def _bound(self, channel, kind):
        socket = self.context.socket(kind)
        socket.sndhwm = socket.rcvhwm = 0
        self.ports[channel] = socket.bind_to_random_port("tcp://127.0.0.1")
        return socket

    def _real_url(self, channel):
        return f"{self.real['interface']}:{self.real[channel]}"

    def connection(self):
        """What the client connects by."""
        return {**self.real, **self.ports, "interface": "tcp://127.0.0.1", "location": "127.0.0.1", "ssh": ""}

    # -- the relay's thread

    def _run(self):
        end = self.context.socket(zmq.PAIR)
        end.connect("inproc://ending")
        self.poller.register(end, zmq.POLLIN)
        while True:
            for socket, _ in self.poller.poll():
                if socket is end:
                    for other in [end, *self.fronts.values(), *self.backs]:
                        other.close()
                    return
                frames = socket.recv_multipart()
                if socket in self.backs:
                    self._from_controller(socket, frames)
                else:
                    self._from_client(socket, frames)

    def _from_client(self, front, frames):
        channel = next(name for name, socket in self.fronts.items() if socket is front)
        client = frames.pop(0)
        back = self.routes.get((channel, client))
        if back is None:
            back = self.routes[channel, client] = self.context.socket(zmq.DEALER)
            back.sndhwm = back.rcvhwm = 0
            back.connect(self._real_url(channel))
            self.backs[back] = (channel, client)
            self.poller.register(back, zmq.POLLIN)
        # Kept before it is sent: its answer must find it.
        self._keep(channel, frames, self.requests)
        back.send_multipart(frames)

    def _from_controller(self, back, frames):
        channel, client = self.backs[back]
        self._keep(channel, frames, self.heard if client is None else self.replies)
        self.fronts[channel].send_multipart(frames if client is None else [client, *frames])

    def _keep(self, channel, frames, where):
        try:
            _, rest = self.session.feed_identities(frames)
            message = self.session.deserialize(rest, content=True)
        except (ValueError, TypeError, KeyError) as error:
            # An XPUB's greeting of a subscriber has no delimiter and no meaning here (iopub of newer ipykernels).
            if channel != "iopub":
                self.problems.append(f"{channel}: {error}: {frames!r}")
            return
        with self.lock:
            if where is self.requests:
                self.steps_of[message["header"]["msg_id"]] = self.step
            asked = self._asked(message["parent_header"].get("msg_id") or "")
            where.append(Message(channel, self.steps_of.get(asked, self.step), message, asked))

    def _asked(self, parent):
        """The request that a message belongs to: its parent, or, of a broadcast, what the parent's id begins with."""
        if parent in self.steps_of:
            return parent
        whole, _, _ = parent.rpartition("_")
        while whole:
            if whole in self.steps_of:
                return whole
            whole, _, _ = whole.rpartition("_")
        return None

    # -- the script's side

    def begin(self, step):
        with self.lock:
            self.step = step

    def of(self, step, where):
        """The messages of a step, in order of arrival; `where` is `requests`, `replies` or `heard`."""
        with self.lock:
            return [message for message in getattr(self, where) if message.step == step]

    def settle(self, step):
        """Returns when every request of a step is answered and what was executed has told its output."""
        end = time.monotonic() + DEADLINE
        while True:
            replies = self.of(step, "replies")
            idle = {
                message.parent
                for message in self.of(step, "heard")
                if message.type == "status" and message.content["execution_state"] == "idle"
            }
            missing = []
            for request in self.of(step, "requests"):
                answers = [reply for reply in replies if reply.asked == request.id]
                whole = request.metadata.get("is_broadcast") and not request.metadata["is_coalescing"]
                if len(answers) < (len(request.metadata["targets"]) if whole else 1):
                    missing.append(f"the reply to {request.type}")
                elif request.type not in ("apply_request", "execute_request"):
                    continue
                for reply in answers:
                    if ran(reply) and not reply.metadata.get("is_coalescing") and reply.parent not in idle:
                        missing.append(f"the output of {request.type}")
            if not missing:
                return
            if time.monotonic() > end:
                raise Hung(f"step `{step}`: {', '.join(missing)} did not come")
            time.sleep(0.005)

    def close(self):
        self.ending.send(b"")
        self.thread.join()
        self.ending.close()
        self.context.destroy(linger=0)

    def write(self, path):
        """The connection file for the client."""
        path.write_text(json.dumps(self.connection()))
        return path


def ran(reply):
    """Whether an engine answered, so that the request has output."""
    content = reply.content
    return content["status"] == "ok" or bool(content["status"] == "error" and content.get("engine_info"))
