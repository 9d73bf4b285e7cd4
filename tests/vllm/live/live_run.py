"""The live run, in order: a server that is asked, a daemon that corrects it, and both killed in
between. What was seen on the way is what the tests of test_live.py hold against each other."""

import dataclasses
import pathlib
import re

from batch import QUANTIZER
from opened import Opened
from processes import Live

NAME = "qera"  # of the adapter
KEPT = 3  # generations: the fewest that the daemon takes
PART = 8  # prompts, before the kills and after
LONG_ANSWER = 64
FOLDED = re.compile(r"^folded (\S+): ", re.MULTILINE)
LOADED = re.compile(r"Loaded new LoRA adapter: name '(\S+)', path '(\S+)'")


@dataclasses.dataclass
class Seen:
    base: float = 0.0  # perplexities
    live: float = 0.0
    before_kill: str = ""  # what the name was loaded from
    restarted: str = ""
    last: str = ""
    published_at_restart: str = ""
    uncached: object = None  # the next token, by the generation before the swap
    cached: object = None
    swapped: object = None
    opened: tuple = ()
    told: tuple = ()
    exit_code: int = -1
    alive_at_the_end: bool = False
    log: str = ""


class LiveRun:
    def __init__(self, stage):
        self.stage, self.prompts, self.seen = stage, stage.material.prompts, Seen()
        self.activations, self.out = stage.folder("live-activations"), stage.folder("live")
        self.log, self.canary = stage.work / "live-daemon.log", stage.work / "canary.txt"
        self.log.unlink(missing_ok=True)
        self.canary.write_text(stage.material.canary, encoding="utf-8")
        with self.server() as server:
            server.wait_until_ready()
            self.seen.base = server.ask.perplexity("base", stage.material.judged)
            self.first_daemon(server)
        with self.server(port=server.port) as again, self.daemon(again) as daemon:
            self.after_both_were_killed(again, daemon)
            self.swap_with_a_cached_prompt(again, daemon)
            self.end(again, daemon)

    def server(self, **more):
        tap = self.stage.tap(self.activations)
        return self.stage.server("live-server", self.stage.batch.packed, tap=tap, goes_on="port" in more, **more)

    def daemon(self, server):
        watched = ("--watch", self.activations, "--checkpoint", self.stage.material.model, "--out", self.out)
        written = ("--emit-base=compressed-tensors", "--keep-generations", KEPT, "--consume", "delete")
        notify = ("--notify", f"vllm={server.url},name={NAME},canary={self.canary}")
        command = [self.stage.daemon, *watched, *QUANTIZER, *written, *notify]
        return Live(command, self.out, self.log)

    def current(self):
        return str((self.out / "current").resolve())

    def serves_current(self, server):
        return server.ask.roots().get(NAME) == self.current()

    def written(self, daemon):
        """The names of all shards, also of those that were consumed."""
        waiting = {path.name for path in self.activations.glob("[!.]*.safetensors")}
        return waiting | set(FOLDED.findall(daemon.said()))

    def ask(self, server, model, prompts):
        for prompt in prompts:
            server.ask.complete(model, prompt)

    def first_daemon(self, server):
        """Ends with the daemon killed at work, and the server by the caller."""
        with self.daemon(server) as daemon:
            self.ask(server, "base", self.prompts[:PART])
            # What is in hand when a server is killed is lost, and nobody waits for it thereafter.
            daemon.wait("the shards of all requests", lambda: len(self.written(daemon)) == PART, 120)
            daemon.wait("the first hand-over", lambda: NAME in server.ask.roots(), 240)
            self.seen.before_kill = server.ask.roots()[NAME]
            daemon.kill()

    def after_both_were_killed(self, server, daemon):
        server.wait_until_ready()
        daemon.wait_until_idle(PART)
        daemon.wait("the hand-over to a new server", lambda: self.serves_current(server), 120)
        self.seen.restarted, self.seen.published_at_restart = server.ask.roots()[NAME], self.current()

    def swap_with_a_cached_prompt(self, server, daemon):
        prompt = self.stage.material.long_prompt
        self.seen.uncached, self.seen.cached = (server.ask.next_token(NAME, prompt) for _ in range(2))
        self.ask(server, NAME, self.prompts[PART:])
        daemon.wait_until_idle(2 * PART)
        daemon.wait("the hand-over", lambda: self.serves_current(server), 120)
        self.seen.swapped = server.ask.next_token(NAME, prompt)

    def end(self, server, daemon):
        self.seen.last = self.current()
        with Opened(self.seen.last) as opened:
            prompt = self.stage.material.long_prompt
            server.ask.complete(NAME, prompt, "qera-long-answer", max_tokens=LONG_ANSWER, ignore_eos=True)
        self.seen.opened = tuple(opened.names)
        self.seen.live = server.ask.perplexity(NAME, self.stage.material.judged)
        self.seen.exit_code = daemon.stop()
        self.seen.alive_at_the_end = server.is_alive()
        self.seen.log = server.said()
        self.seen.told = tuple(path for name, path in LOADED.findall(self.seen.log) if name == NAME)

    def pruned(self):
        """Generations that a server was told of, and that are gone."""
        return [path for path in self.seen.told if not pathlib.Path(path).exists()]
