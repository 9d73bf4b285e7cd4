"""A vLLM server on a free port, as a user starts one, and the processes that it is made of."""

import os
import pathlib
import signal
import socket
import subprocess
import time

from asking import Asking

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_WAIT_POLICY": "PASSIVE",  # the daemon has the same cores: threads that spin take them from it
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
    # Memory that is freed stays the process's. On CPUs vLLM copies an adapter's weights for each
    # token, gigabytes a request, and to fault them in again takes more time than all else; without
    # an adapter it was 2 % of the CPU seconds, more or less by the order of all calls.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
}
OPTIONS = ("--enforce-eager", "--max-model-len", 1100, "--enable-prompt-tokens-details")
LORA = ("--enable-lora", "--max-lora-rank", 32, "--max-loras", 2)
BASE = "base"  # what requests without an adapter ask for


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def command(python, model, dtype, options):
    """What starts a server of the stage, but for its address."""
    served = ["--model", model, "--served-model-name", BASE, "--dtype", dtype]
    return [python, "-m", "vllm.entrypoints.openai.api_server", *served, *OPTIONS, *LORA, *options]


class Server:
    """Ends with the `with` block. `environment`: what the command has beside that of all servers
    here."""

    def __init__(self, command, log, environment, port=None):
        self.log, self.port = pathlib.Path(log), port or free_port()
        address = ["--host", "127.0.0.1", "--port", self.port]
        environment = os.environ | ENVIRONMENT | environment
        with self.log.open("ab") as log_file:
            self.process = subprocess.Popen(
                [str(part) for part in (*command, *address)],
                env={name: str(value) for name, value in environment.items()},
                stdout=log_file,
                stderr=log_file,
                start_new_session=True,
            )
        self.url = f"http://127.0.0.1:{self.port}"
        self.ask = Asking(self.port)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def said(self):
        return self.log.read_text(errors="replace")

    def wait_until_ready(self, seconds=180):
        end = time.monotonic() + seconds
        while not self.ask.is_healthy():
            assert self.process.poll() is None, f"the server ended\n{self.said()[-4000:]}"
            assert time.monotonic() < end, f"no server in {seconds} s\n{self.said()[-4000:]}"
            time.sleep(0.5)
        return self

    def is_alive(self):
        return self.process.poll() is None and self.ask.is_healthy()

    def stop(self, seconds=30):
        """SIGTERM, as a user's Ctrl-C: what waits is written."""
        self.process.terminate()
        self.process.wait(seconds)

    def kill(self):
        """As a machine that fails does: all of its processes at once."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
