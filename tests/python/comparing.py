"""Two recordings of one script of calls, made comparable, and compared field by field."""

from __future__ import annotations

import datetime
import re

# A message's id is its sender's session, process and number: of ours, the session has a name by now.
MSG_ID = re.compile(r"(<(?:engine \d+|client|uuid)>)(?:_\d+)+\b")
UUID = re.compile(r"(?<![0-9a-f])[0-9a-f]{8}-(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}(?![0-9a-f])|(?<![0-9a-f])[0-9a-f]{8}-?[0-9a-f]{24}(?![0-9a-f])")
DATE = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)?")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Names:
    """Stable names for what differs between any two runs: ids, dates, folders."""

    def __init__(self, recorder, folder, engines):
        self.known = {str(folder): "<folder>", recorder.session.session: "<recorder>"}
        for number, engine in engines.items():
            self.known[engine] = f"<engine {number}>"
        counts = {}
        for request in recorder.requests:
            counts[request.step] = counts.get(request.step, 0) + 1
            self.known[request.id] = f"<request {counts[request.step]} of {request.step}>"
            self.known.setdefault(request.header["session"], "<client>")
        # Longest first: a message's id begins with its session.
        words = sorted(self.known, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, words)))

    def text(self, text):
        text = self.pattern.sub(lambda match: self.known[match[0]], COLOUR.sub("", text))
        text = MSG_ID.sub(r"<message of \1>", UUID.sub("<uuid>", text))
        return DATE.sub("<date>", text)

    def value(self, value):
        if isinstance(value, dict):
            return {self.text(str(key)): self.value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        if isinstance(value, (set, frozenset)):
            return sorted(map(self.value, value), key=repr)
        if isinstance(value, (bytes, memoryview)):
            return self.text(bytes(value).decode("latin-1"))
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, datetime.datetime):
            return "<date>" if value.tzinfo else "<date without zone>"
        if value is None or isinstance(value, (bool, int, float)):
            return value
        return self.text(repr(value))

    def message(self, message):
        header, metadata = self.value(message.header), self.value(message.metadata)
        parent = self.value(message.parent_header)
        if metadata.get("is_coalescing"):
            # It is the reply of the engine that was done last, whichever that was.
            header["msg_id"] = header["session"] = metadata["engine"] = "<one of the engines>"
            parent["msg_id"] = re.sub(r"_<engine \d+>$", "_<one of the engines>", parent["msg_id"])
        return {
            "type": message.type,
            "header": header,
            "parent_header": parent,
            "metadata": metadata,
            "content": self.value(message.content),
            "buffers": self.value(message.buffers),
        }


def output_of(messages):
    """Messages of one request on iopub. How a stream is cut into messages is the engine's and chance's: joined here."""
    joined = []
    for message in messages:
        last = joined[-1] if joined else None
        if last and message["type"] == last["type"] == "stream":
            if message["content"]["name"] == last["content"]["name"]:
                last["content"] = {**last["content"], "text": last["content"]["text"] + message["content"]["text"]}
                continue
        joined.append(message)
    # Two streams of a task overtake each other.
    return sorted(joined, key=lambda message: (message["type"] == "stream" and message["content"]["name"]) or "")


def of_step(recorder, names, step, outcome):
    """All that a step showed its client, by path."""
    seen = {"outcome": names.value(outcome)}
    replies = recorder.of(step, "replies")
    heard = recorder.of(step, "heard")
    for number, request in enumerate(recorder.of(step, "requests"), start=1):
        name = f"{number} {request.channel} {request.type}"
        answers = [names.message(reply) for reply in replies if reply.asked == request.id]
        # The replies to a broadcast come in the order in which the engines finish.
        seen[f"{name}: reply"] = sorted(answers, key=lambda answer: str(answer["metadata"].get("engine")))
        outputs = {}
        for message in heard:
            if message.channel == "iopub" and message.asked == request.id:
                outputs.setdefault(names.text(message.header["session"]), []).append(names.message(message))
        for engine in sorted(outputs):
            seen[f"{name}: output of {engine}"] = output_of(outputs[engine])
    notifications = [names.message(message) for message in heard if message.channel == "notification"]
    if notifications:
        seen["notifications"] = notifications
    return seen


def flat(value, path=""):
    """Every leaf with its path; what is empty counts as a leaf."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from flat(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        for number, item in enumerate(value):
            yield from flat(item, f"{path}[{number}]")
    else:
        yield path, value


ABSENT = "(absent)"


def differences(stock, ours):
    """`step: path: stock's value -> ours`, a line for each field that differs."""
    found = []
    assert list(stock) == list(ours), "both ran the same steps"
    for step in stock:
        left, right = dict(flat(stock[step])), dict(flat(ours[step]))
        for path in list(left) + [path for path in right if path not in left]:
            one, other = left.get(path, ABSENT), right.get(path, ABSENT)
            if one != other or type(one) is not type(other):
                found.append(f"{step}: {path}: {short(one)} -> {short(other)}")
    return found


def short(value, most=160):
    text = repr(value) if value is not ABSENT else ABSENT
    return text if len(text) <= most else f"{text[:most]}…"
