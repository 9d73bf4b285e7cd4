"""The six commands of docs/vllm.md, as they stand there, on other paths and another port."""

import re
import shlex
import sys
import time

from material import ROOT
from processes import Live, run

PROMPTS = 3  # of each recording
FOLDERS = {"/srv/activations": "activations", "/srv/qera": "out", "/srv/models/my-model": "model"}
SERVER = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model"]  # the package has no `vllm`


def commands():
    """The shell lines of the first block, by the number of their comment."""
    text = (ROOT / "docs/vllm.md").read_text(encoding="utf-8")
    block = re.search(r"## Six commands\n\n<!--.*?-->\n```sh\n(.*?)```", text, re.DOTALL)[1].replace("\\\n", " ")
    parts = re.split(r"^# (\d)\..*\n", block, flags=re.MULTILINE)[1:]
    return {int(number): line.strip() for number, line in zip(parts[::2], parts[1::2])}


def split(line):
    """Environment and words of a command."""
    words, environment = shlex.split(line), {}
    while re.match(r"[A-Z_]+=", words[0]):
        name, value = words.pop(0).split("=", 1)
        environment[name] = value
    return environment, words


class CommandsTests:
    def __init__(self, stage):
        self.stage, self.folder, self.log = stage, stage.folder("commands"), stage.work / "commands-daemon.log"
        self.log.unlink(missing_ok=True)
        (self.folder / "model").symlink_to(stage.material.model)
        self.commands = {number: self.moved(line) for number, line in commands().items()}
        self.record()
        self.corrected = self.published()
        self.served = self.serve()

    def moved(self, line):
        for documented, name in FOLDERS.items():
            line = line.replace(documented, str(self.folder / name))
        return line

    def server(self, number, name):
        environment, words = split(self.commands[number])
        assert words[:2] == ["vllm", "serve"], words
        words = words[2:]
        if "--port" in words:  # the documented address gives way to a free one
            del words[words.index("--host") : words.index("--port") + 2]
        return self.stage.start(name, [*SERVER, *words, "--max-model-len", 1100], environment)

    def record(self):
        with self.server(2, "commands-full-precision") as server:
            server.wait_until_ready()
            for prompt in self.stage.material.prompts[:PROMPTS]:
                server.ask.complete(str(self.folder / "model"), prompt)
            self.wait_for_shards(PROMPTS)
            server.stop()

    def wait_for_shards(self, count, seconds=60):
        """What is in hand when a server is told to end may be lost."""
        end = time.monotonic() + seconds
        while len(list((self.folder / "activations").glob("[!.]*.safetensors"))) < count:
            assert time.monotonic() < end, f"less than {count} shards"
            time.sleep(0.2)

    def daemon_words(self, number):
        words = shlex.split(self.commands[number])
        words = words[words.index("qera-daemon") + 1 :]
        return [self.stage.daemon, *words]

    def published(self):
        run(self.daemon_words(3))
        return (self.folder / "out/current").resolve()

    def serve(self):
        """What the adapter's name was loaded from before and after it was asked."""
        roots = []
        with self.server(4, "commands-packed") as server:
            words = [str(word).replace("http://127.0.0.1:8000", server.url) for word in self.daemon_words(5)]
            server.wait_until_ready()
            with Live(words, self.folder / "out", self.log) as daemon:
                daemon.wait("the first hand-over", lambda: "qera" in server.ask.roots(), 120)
                roots.append(server.ask.roots()["qera"])
                for prompt in self.stage.material.prompts[PROMPTS : 2 * PROMPTS]:
                    server.ask.complete("qera", prompt)
                daemon.wait_until_idle(2 * PROMPTS)
                daemon.wait("a newer one", lambda: server.ask.roots().get("qera") != roots[0], 120)
                roots.append(server.ask.roots()["qera"])
        return roots

    def test_the_last_is_a_request_to_the_adapter(self):
        assert '"model": "qera"' in self.commands[6] and "/v1/completions" in self.commands[6]

    def test_the_first_generation_is_served_and_gives_way(self):
        first, last = self.served
        assert first == str(self.corrected) and last > first, self.served
