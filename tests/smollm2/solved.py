"""A form's run of the daemon, with what it took, and the model that it published."""

import json
import os
import pathlib
import shutil
import subprocess
import time

from published import load_by_readme
from source import digest


def anonymous_bytes(process):
    """What the process has of anonymous memory now; 0 when it has ended."""
    try:
        status = pathlib.Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("RssAnon:")), 0)


def measured(command, log):
    """Runs it to its end: what it took."""
    begin, peak = time.monotonic(), 0
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file).pid
        while (ended := os.wait4(process, os.WNOHANG))[0] == 0:
            peak = max(peak, anonymous_bytes(process))
            time.sleep(0.005)
    code, usage = os.waitstatus_to_exitcode(ended[1]), ended[2]
    if code != 0:
        raise SystemExit(f"run.sh: {' '.join(command)}\nexit code {code}\n{log.read_text()[-3000:]}")
    return {
        "wall_s": time.monotonic() - begin,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "resident_bytes": usage.ru_maxrss << 10,
        "anonymous_bytes": peak,
    }


class Solved:
    """`folder` holds the run's output and what it took; the run is made when it is not there, or
    another binary's."""

    def __init__(self, daemon, checkpoint, activations, folder, options):
        self.out, stamp = folder / "out", folder / "took.json"
        common = ["--watch", activations, "--checkpoint", checkpoint, "--out", self.out, "--once"]
        command = [str(part) for part in (daemon, *common, *options)]
        made_by = {"binary": digest(daemon), "options": command[1:]}
        if stamp.is_file() and (took := json.loads(stamp.read_text()))["made_by"] == made_by:
            self.took = took
            return
        shutil.rmtree(self.out, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        print(" ".join(command), flush=True)
        plan = subprocess.run(
            [*command, "--log-format", "json", "plan"], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        took = measured(command, folder / "daemon.log") | {"planned_bytes": json.loads(plan.stdout)["total_bytes"]}
        self.took = took | {"made_by": made_by}
        shutil.rmtree(self.out / "state")  # as large as the model and its statistics, and not asked for again
        stamp.write_text(json.dumps(self.took, indent=1))

    def digest(self):
        """Of all that decides what the model answers."""
        base = sorted((self.out / "base").glob("*.safetensors"))
        return " ".join(digest(path) for path in (*base, self.out / "current/adapter_model.safetensors"))

    def load(self):
        """As the generation's README does, in f32."""
        return load_by_readme(self.out).model.float()
