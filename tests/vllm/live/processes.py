"""The daemon as a process: one that ends, and one that is killed."""

import json
import os
import pathlib
import signal
import subprocess
import time


def run(command, code=0):
    """What a command printed; raises with that when it ends otherwise."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    said = f"{' '.join(map(str, command))}\nexit code {done.returncode}\n{done.stdout[-1500:]}{done.stderr[-3000:]}"
    assert done.returncode == code, said
    return done.stdout


def yield_to_servers(pid):
    """Lets the servers' threads go first: by the weight of the process's session where the kernel
    shares out the cores among sessions, within which alone a nice value then counts."""
    os.setpriority(os.PRIO_PROCESS, pid, 19)
    autogroup = pathlib.Path(f"/proc/{pid}/autogroup")
    if autogroup.exists():
        autogroup.write_text("19")


class Live:
    """A daemon at work; killed when the `with` block ends. Messages are appended to `log`."""

    def __init__(self, command, out, log):
        self.binary, self.out, self.log = command[0], out, log
        self.begin = log.stat().st_size if log.exists() else 0  # where this process begins to speak
        with log.open("ab") as file:
            words = list(map(str, command))
            self.process = subprocess.Popen(words, stdout=file, stderr=file, start_new_session=True)
        yield_to_servers(self.process.pid)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self, seconds=240):
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def said(self):
        with self.log.open(errors="replace") as file:
            file.seek(self.begin)
            return file.read()

    def status(self):
        return json.loads(run([self.binary, "status", "--out", self.out, "--json"]))

    def wait(self, what, condition, seconds):
        """Until `condition` is something; returns that."""
        end = time.monotonic() + seconds
        while not (met := condition()):
            assert self.process.poll() is None, f"the daemon ended before {what}\n{self.said()[-3000:]}"
            assert time.monotonic() < end, f"not in {seconds} s: {what}\n{self.said()[-3000:]}"
            time.sleep(0.5)
        return met

    def wait_until_idle(self, shards, seconds=300):
        def idle():
            status = self.status()
            return (status["phase"], status["shards"]) == ("idle", shards)

        self.wait(f"idle with {shards} shards", idle, seconds)
