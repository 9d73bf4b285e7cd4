"""What the tap costs: the same requests to servers without it, with it, and with one request in
sixteen recorded."""

import dataclasses
import hashlib
import itertools
import os
import pathlib
import statistics
import time

ROUNDS = 3 if os.environ.get("QERA_TEST_TIER") == "long" else 1
EVERY = 16
LIMITS = {"all": 0.15, "every 16": 0.03}  # of the CPU seconds without the tap: time is said, and is the machine's, too
TICKS = os.sysconf("SC_CLK_TCK")
SERVED = {  # what all three servers have
    "QERA_TEST_WAITING": 1,  # processes that wait take no core
    "VLLM_DISABLE_REQUEST_ID_RANDOMIZATION": 1,  # an id is what the client says
}


def cpu_seconds(group):
    """Of all processes of a process group that run now."""
    ticks = 0
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # it has ended
        if int(fields[2]) == group:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def request_id(name, is_chosen):
    """An id that begins with `name`, of a request that QERA_TAP_EVERY chooses, or of one that it
    does not."""
    for number in itertools.count():
        sent = f"{name}-{number}"
        key = f"cmpl-{sent}-0"  # what the server makes of it
        hashed = int.from_bytes(hashlib.blake2s(key.encode(), digest_size=8).digest(), "little")
        if (hashed % EVERY == 0) == is_chosen:
            return sent


@dataclasses.dataclass
class Round:
    """What the requests of one round took: seconds, those of the CPU until all shards are written,
    and shards."""

    seconds: float = 0.0
    cpu: float = 0.0
    shards: int = 0


class Measured:
    """A server, and what it took each round. `every`: one request in so many is recorded; None: it
    has no tap."""

    def __init__(self, stage, name, every):
        self.name, self.folder, self.rounds = name, stage.folder(f"overhead-{name.replace(' ', '-')}"), []
        self.every = every
        environment = SERVED | (stage.tap(self.folder, QERA_TAP_EVERY=every) if every else {})
        options = ("--no-enable-prefix-caching", "--seed", 0)
        self.server = stage.server(f"overhead-{name.replace(' ', '-')}", stage.batch.packed, *options, tap=environment)

    def consume(self):
        """Counts and removes the shards that are whole."""
        for path in self.folder.glob("[!.]*.safetensors"):
            path.unlink()
            self.rounds[-1].shards += 1

    def settle(self, shards, seconds=60):
        """Until so many shards have been written, or no more come."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.rounds[-1].shards < shards:
            time.sleep(0.2)
            self.consume()

    def expected(self, requests):
        """How many of so many requests are recorded: `OverheadTests.round` chooses their ids so."""
        return -(-requests // self.every) if self.every else 0

    def begin(self):
        self.rounds.append(Round(cpu=-cpu_seconds(self.server.process.pid)))

    def ask(self, prompt, name):
        begin = time.monotonic()
        self.server.ask.complete("base", prompt, name)
        self.rounds[-1].seconds += time.monotonic() - begin
        self.consume()

    def end(self, requests):
        taken = self.rounds[-1]
        self.settle(self.expected(requests))
        taken.cpu += cpu_seconds(self.server.process.pid)
        print(f"{self.name}: {taken.seconds:.2f} s, CPU {taken.cpu:.2f} s, {taken.shards} shards", flush=True)


class OverheadTests:
    def __init__(self, stage):
        self.prompts = stage.material.prompts
        taps = {"none": None, "all": 1, "every 16": EVERY}
        self.measured = {name: Measured(stage, name, every) for name, every in taps.items()}
        try:
            self.measure()
        finally:
            for measured in self.measured.values():
                measured.server.kill()
        figures = {"overhead": "all", "overhead_every_16": "every 16"}
        stage.figures |= {figure: self.overhead(name, "cpu") for figure, name in figures.items()}
        for name in LIMITS:
            wall, cpu = (f"{100 * self.overhead(name, what):.1f} %" for what in ("seconds", "cpu"))
            print(f"overhead, {name}: {wall} of the time, {cpu} of the CPU seconds")

    def measure(self):
        for measured in self.measured.values():
            measured.server.wait_until_ready()
        self.round("warm", self.prompts[:2])
        for measured in self.measured.values():
            measured.rounds.clear()
        for turn in range(ROUNDS):
            self.round(f"round-{turn}", self.prompts)

    def round(self, name, prompts):
        """Each prompt to one server after the other, so that all three have the same of what the
        machine does beside. One request in sixteen is of those that QERA_TAP_EVERY chooses."""
        servers = list(self.measured.values())
        for measured in servers:
            measured.begin()
        for number, prompt in enumerate(prompts):
            for at in range(len(servers)):
                asked = request_id(f"{name}-{number}", number % EVERY == 0)
                servers[(number + at) % len(servers)].ask(prompt, asked)
        for measured in servers:
            measured.end(len(prompts))

    def overhead(self, name, what):
        """The median of the rounds: each is paired with the same one without the tap."""
        pairs = zip(self.measured[name].rounds, self.measured["none"].rounds)
        return statistics.median(getattr(ours, what) / getattr(without, what) - 1 for ours, without in pairs)

    def test_as_many_requests_were_recorded_as_should_be(self):
        for name, measured in self.measured.items():
            found, wanted = [taken.shards for taken in measured.rounds], measured.expected(len(self.prompts))
            said = [line for line in measured.server.said().splitlines() if "qera tap" in line]
            assert found == [wanted] * ROUNDS, f"{name}: {found} shards, {wanted} a round; {said}"

    def test_the_tap_costs_little(self):
        for name, limit in LIMITS.items():
            overhead = self.overhead(name, "cpu")
            assert overhead <= limit, f"{name}: {overhead:.3f} of the CPU seconds"
