"""Runs qera-daemon as a user would, and reads what it published."""

import json
import pathlib
import signal
import subprocess
import time

from fixture import ACTIVATIONS, MODEL

PREFIX = "base_model.model."


class Daemon:
    """The binary, and a folder of its own for each run's output."""

    def __init__(self, binary, work):
        self.binary, self.work, self.runs = pathlib.Path(binary).resolve(), pathlib.Path(work), 0

    def once(self, *options, activations=ACTIVATIONS, checkpoint=MODEL):
        """`--once` with `options` added; returns the output folder, or raises with what the daemon
        said."""
        self.runs += 1
        out = self.work / f"run-{self.runs}"
        command = [self.binary, "--watch", activations, "--checkpoint", checkpoint, "--out", out, "--once", *options]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if done.returncode != 0:
            raise AssertionError(f"{' '.join(map(str, command))}\nexit code {done.returncode}\n{done.stderr[-3000:]}")
        return out

    def verify(self, out, base="base"):
        """`verify` on what was published, with a base of it; raises with what it said when it finds
        something."""
        command = [self.binary, "verify", "--adapter", out / "current", "--base", out / base]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        assert done.returncode == 0, f"verify: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"

    def live(self, command, folder):
        """A command that runs the binary without `--once`."""
        return Live(self.binary, command, folder)


class Live:
    """A daemon at work in `folder` with the output folder `live-out` there; killed when the `with`
    block ends."""

    def __init__(self, binary, command, folder):
        self.binary, self.folder, self.out, self.log = binary, folder, folder / "live-out", folder / "daemon.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def said(self, words):
        """How many lines of its messages begin with `words`."""
        return sum(line.startswith(words) for line in self.log.read_text().splitlines())

    def status(self, *options):
        command = [self.binary, "status", "--out", self.out.name, *options]
        return subprocess.run(command, cwd=self.folder, check=True, capture_output=True, text=True).stdout

    def wait(self, what, condition, seconds):
        """Until `condition` is something; returns that."""
        end = time.monotonic() + seconds
        while not (met := condition()):
            assert self.process.poll() is None, f"the daemon ended before it was {what}\n{self.log.read_text()[-3000:]}"
            assert time.monotonic() < end, f"not {what} in {seconds} s\n{self.log.read_text()[-3000:]}"
            time.sleep(0.1)
        return met

    def wait_until_watching(self, seconds=60):
        self.wait("watching", lambda: self.said("watching"), seconds)

    def wait_until_idle(self, shards, seconds=120):
        """Until so many shards are folded and published; returns the status then."""

        def idle():
            status = json.loads(self.status("--json"))
            return status if (status["phase"], status["shards"]) == ("idle", shards) else None

        return self.wait(f"idle with {shards} shards", idle, seconds)

    def stop(self, seconds=60):
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


def manifest(out):
    return generation_manifest(out / "current")


def generation_manifest(generation):
    return json.loads((generation / "qera_manifest.json").read_text())


def generations(out):
    return sorted((out / "generations").iterdir())


def correction(adapter, name):
    """C^T [out, in] of one layer in f64, straight from the adapter's tensors."""
    return adapter[f"{PREFIX}{name}.lora_B.weight"].double() @ adapter[f"{PREFIX}{name}.lora_A.weight"].double()
