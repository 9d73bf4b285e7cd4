"""llama.cpp's server with `--lora`: what its requests of /lora-adapters do, and that it answers as
W~ + C."""

import contextlib
import json
import pathlib
import subprocess
import sys
import time
import urllib.request

from engine import Engine
from judged import log_probabilities

PROMPT, BEST = 64, 10  # tokens
AGREE = 0.02  # nats: its batches are others
EFFECT = 0.1


class Server:
    def __init__(self, address):
        self.address = address

    def ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def best(self, tokens):
        """Token -> log probability of the likeliest that follow."""
        asked = {"prompt": tokens, "n_predict": 1, "n_probs": BEST, "temperature": 0, "cache_prompt": False}
        (said,) = self.ask("/completion", asked)["completion_probabilities"]
        return {of["id"]: of["logprob"] for of in said["top_logprobs"]}


@contextlib.contextmanager
def running(model, adapter):
    script = pathlib.Path(__file__).with_name("serve.py")
    command = [sys.executable, script, model, adapter]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen([str(part) for part in command], **pipes) as process:
        try:
            server = Server(process.stdout.readline().strip())
            for _ in range(120):
                with contextlib.suppress(OSError):
                    server.ask("/health")
                    break
                time.sleep(0.5)
            yield server
        finally:
            process.kill()


class ServedTests:
    """`base` and `adapter` are those of another suite."""

    def __init__(self, measured, base, adapter):
        self.base, self.adapter = base, adapter
        self.prompt = [int(token) for token in measured.judge.sequences[0][:PROMPT]]

    def expected(self, adapter=None):
        with Engine(self.base, adapter) as engine:
            return log_probabilities(engine.logits(self.prompt)[-1:])[0]

    def test_requests_set_scales_and_load_nothing(self):
        corrected, plain = self.expected(self.adapter), self.expected()
        with running(self.base, self.adapter) as server:
            (listed,) = server.ask("/lora-adapters")
            assert (listed["id"], listed["path"], listed["scale"]) == (0, str(self.adapter), 1.0), listed
            found = server.best(self.prompt)
            assert max(abs(corrected[token] - of) for token, of in found.items()) < AGREE, found
            assert max(abs(plain[token] - of) for token, of in found.items()) > EFFECT, found
            server.ask("/lora-adapters", [{"id": 0, "scale": 0.0}])
            found = server.best(self.prompt)
            assert max(abs(plain[token] - of) for token, of in found.items()) < AGREE, found
            server.ask("/lora-adapters", [{"id": 0, "scale": 1.0, "path": "other.gguf"}])
            (listed,) = server.ask("/lora-adapters")
            assert (listed["path"], listed["scale"]) == (str(self.adapter), 1.0), listed
