"""Which requests are recorded, and how far each has come."""

import hashlib
import json
import os
import re
from dataclasses import dataclass, field

# The server puts a number, the endpoint's word and a hyphen before the client's own id.
OWN_ID = re.compile(r"(?:\d+_)?(?:[a-z]+-){0,2}?qera-")
SHORTEST = 32  # rows of a request that are worth a shard


@dataclass(eq=False)
class Request:
    """A request that is recorded."""

    key: str
    adapter: str | None  # the folder of its adapter
    adapter_id: int | None
    position: int  # of its next row in its text
    recorded: int = 0  # rows at positions before this one are recorded
    cut: bool = False  # no further row of it is


@dataclass(frozen=True)
class Segment:
    """Rows start to stop of a step are one request's."""

    request: Request
    start: int
    stop: int


@dataclass
class Counts:
    """What was not recorded: requests by reason, rows by reason."""

    requests: dict = field(default_factory=dict)
    rows: dict = field(default_factory=dict)

    def request(self, reason):
        self.requests[reason] = self.requests.get(reason, 0) + 1

    def row(self, reason, rows):
        if rows:
            self.rows[reason] = self.rows.get(reason, 0) + rows


def is_ours(folder):
    """Whether an adapter was published by qera."""
    try:
        with open(os.path.join(folder, "adapter_config.json"), encoding="utf-8") as file:
            json.load(file)
        return os.path.isfile(os.path.join(folder, "qera_manifest.json"))
    except (OSError, ValueError):
        return False


class Choice:
    """Which requests are wanted."""

    def __init__(self, which, every):
        self.which, self.every, self.ours = which, every, {}

    def refusal(self, key, sampling, adapter):
        """Why a request is not recorded; None if it is."""
        if OWN_ID.match(key):
            return "qera's own"
        if sampling is not None and getattr(sampling, "prompt_logprobs", None) is not None:
            return "prompt_logprobs"
        if adapter is None and self.which == "adapter":
            return "without an adapter"
        if adapter is not None and self.which == "base":
            return "with an adapter"
        if adapter is not None and not self._is_ours(adapter):
            return "with another adapter"
        if self.every > 1 and self._number(key) % self.every:
            return "by QERA_TAP_EVERY"
        return None

    def _is_ours(self, folder):
        if len(self.ours) > 1000:
            self.ours.clear()
        if folder not in self.ours:
            self.ours[folder] = is_ours(folder)
        return self.ours[folder]

    @staticmethod
    def _number(key):
        return int.from_bytes(hashlib.blake2s(key.encode(), digest_size=8).digest(), "little")


class Requests:
    """The recorded requests that have not ended. `swapped`: adapter's id -> the path it was last
    loaded from."""

    def __init__(self, choice, counts, swapped=None):
        self.choice, self.counts, self.swapped = choice, counts, swapped if swapped is not None else {}
        self.running = {}

    def new(self, data):
        """A request that is scheduled for the first time, or again after it was preempted."""
        request = self.running.get(data.req_id)
        if request is not None:
            request.position = data.num_computed_tokens
            return
        lora = data.lora_request
        adapter = None
        if lora is not None:
            adapter = os.path.abspath(self.swapped.get(lora.lora_int_id, lora.lora_path))
        refusal = self.choice.refusal(data.req_id, data.sampling_params, adapter)
        if refusal:
            self.counts.request(refusal)
            return
        start = data.num_computed_tokens
        adapter_id = lora.lora_int_id if lora is not None else None
        self.running[data.req_id] = Request(data.req_id, adapter, adapter_id, start, start)

    def resumed(self, cached):
        """Requests that were preempted compute their rows again from where they now begin."""
        if not cached.resumed_req_ids:
            return
        for key, position in zip(cached.req_ids, cached.num_computed_tokens):
            if key in cached.resumed_req_ids and key in self.running:
                self.running[key].position = position

    def finished(self, keys):
        """The recorded ones of requests that have ended."""
        return [self.running.pop(key) for key in keys if key in self.running]

    def adapter_changed(self, adapter_id):
        """Other weights under the same id: what the requests in flight read from now on is of two
        adapters."""
        for request in self.running.values():
            if request.adapter_id == adapter_id:
                request.cut = True

    def segments(self, order, tokens):
        """The rows of a step that are to be recorded. `tokens`: request's id -> how many rows; they
        lie in `order`."""
        running, found, at = self.running, [], 0
        for key in order:
            count = tokens[key]
            request = running.get(key)
            if request is not None:
                again = min(count, max(0, request.recorded - request.position))
                request.position += count
                if request.cut:
                    self.counts.row("adapter swapped", count - again)
                elif again < count:
                    request.recorded = request.position
                    found.append(Segment(request, at + again, at + count))
            at += count
        return found
