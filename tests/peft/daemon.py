"""Runs qera-daemon as a user would, and reads what it published."""

import json
import pathlib
import subprocess

from fixture import ACTIVATIONS, MODEL


class Daemon:
    """The binary, and a folder of its own for each run's output."""

    def __init__(self, binary, work):
        self.binary, self.work, self.runs = binary, pathlib.Path(work), 0

    def once(self, *options, activations=ACTIVATIONS, checkpoint=MODEL):
        """`--once` with `options` added; returns the output folder, or raises with what the daemon said."""
        self.runs += 1
        out = self.work / f"run-{self.runs}"
        command = [self.binary, "--watch", activations, "--checkpoint", checkpoint, "--out", out, "--once", *options]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if done.returncode != 0:
            raise AssertionError(f"{' '.join(map(str, command))}\nexit code {done.returncode}\n{done.stderr[-3000:]}")
        return out


def manifest(out):
    return json.loads((out / "current/qera_manifest.json").read_text())
