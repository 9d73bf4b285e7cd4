"""What the tap costs: the same requests to servers without it, with it, and with one request in sixteen recorded."""

import dataclasses
import os
import pathlib
import statistics
import time

ROUNDS = 3
LIMITS = {"all": 0.15, "every 16": 0.03}  # of the CPU seconds without the tap: time is said, and is the machine's, too
TICKS = os.sysconf("SC_CLK_TCK")


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


@dataclasses.dataclass(frozen=True)
class Taken:
    """By the requests of one round: seconds of each, and of the CPU until all shards are written."""

    seconds: list
    cpu: float
    shards: int


class Measured:
    """A server, and what it took each round."""

    def __init__(self, stage, name, tap):
        self.name, self.folder, self.rounds = name, stage.folder(f"overhead-{name.replace(' ', '-')}"), []
        environment = stage.tap(self.folder, **tap) if tap is not None else None
        options = ("--no-enable-prefix-caching", "--seed", 0)
        self.server = stage.server(f"overhead-{name.replace(' ', '-')}", stage.batch.packed, *options, tap=environment)

    def shards(self):
        return list(self.folder.glob("[!.]*.safetensors"))

    def settle(self):
        """Until nothing is written any more; how many shards there are. They are removed."""
        before = -1
        while (sizes := sum(path.stat().st_size for path in self.folder.iterdir())) != before or self.is_writing():
            before = sizes
            time.sleep(1)
        shards = self.shards()
        for path in shards:
            path.unlink()
        return len(shards)

    def is_writing(self):
        """A shard has its whole size from its beginning on."""
        return any(self.folder.glob(".tap-*.part"))

    def ask(self, prompts):
        cpu, seconds = cpu_seconds(self.server.process.pid), []
        for prompt in prompts:
            begin = time.monotonic()
            self.server.ask.complete("base", prompt)
            seconds.append(time.monotonic() - begin)
        count = self.settle()
        return Taken(seconds, cpu_seconds(self.server.process.pid) - cpu, count)


class OverheadTests:
    def __init__(self, stage):
        self.prompts = stage.material.prompts
        taps = {"none": None, "all": {}, "every 16": {"QERA_TAP_EVERY": 16}}
        self.measured = {name: Measured(stage, name, tap) for name, tap in taps.items()}
        try:
            self.measure()
        finally:
            for measured in self.measured.values():
                measured.server.kill()
        stage.figures |= {"overhead": self.cpu_overhead("all"), "overhead_every_16": self.cpu_overhead("every 16")}
        for name in LIMITS:
            wall, cpu = (f"{100 * figure:.1f} %" for figure in (self.overhead(name), self.cpu_overhead(name)))
            print(f"overhead, {name}: {wall} of the time, {cpu} of the CPU seconds")

    def measure(self):
        servers = list(self.measured.values())
        for measured in servers:
            measured.server.wait_until_ready()
            measured.ask(self.prompts[:2])  # warm
        for turn in range(ROUNDS):
            for at in range(len(servers)):
                measured = servers[(turn + at) % len(servers)]
                measured.rounds.append(measured.ask(self.prompts))
                taken = measured.rounds[-1]
                wall = sum(taken.seconds)
                print(f"{measured.name}: {wall:.2f} s, CPU {taken.cpu:.2f} s, {taken.shards} shards", flush=True)

    def seconds(self, name):
        return [sum(taken.seconds) for taken in self.measured[name].rounds]

    def overhead(self, name):
        """The median of the rounds: each is paired with the one beside it without the tap."""
        return statistics.median(ours / without - 1 for ours, without in zip(self.seconds(name), self.seconds("none")))

    def cpu_overhead(self, name):
        ours, without = (sum(taken.cpu for taken in self.measured[of].rounds) for of in (name, "none"))
        return ours / without - 1

    def test_every_request_was_recorded(self):
        assert all(taken.shards == len(self.prompts) for taken in self.measured["all"].rounds)
        assert all(taken.shards == 0 for taken in self.measured["none"].rounds)

    def test_the_tap_costs_little(self):
        for name, limit in LIMITS.items():
            assert self.cpu_overhead(name) <= limit, f"{name}: {self.cpu_overhead(name):.3f} of the CPU seconds"
