"""A server's own traffic makes its adapter: what the live run must end with, and what a fresh
server says to it."""

import pathlib

from live_run import KEPT, NAME, LiveRun

NEAR = 0.02  # of the batch job's perplexity
ABOVE = 1.25  # the base alone, in the batch job's perplexities
SAME = 1e-3  # nats: bf16 sums of other orders
BLOCKS = 512  # tokens: the fewest that the cache must have had of the long prompt


class LiveTests:
    def __init__(self, stage):
        self.run, self.batch = LiveRun(stage), stage.batch
        self.seen, judged = self.run.seen, stage.material.judged
        adapters = [f"{NAME}={self.seen.last}", f"batch={stage.batch.adapter}"]
        with stage.server("fresh-server", stage.batch.packed, "--lora-modules", *adapters) as server:
            server.wait_until_ready()
            self.fresh = server.ask.next_token(NAME, stage.material.long_prompt)
            self.fresh_live = server.ask.perplexity(NAME, judged)
            self.batch_perplexity = server.ask.perplexity("batch", judged)
        stage.figures |= {"base": self.seen.base, "live": self.seen.live, "batch": self.batch_perplexity}

    def test_live_is_as_good_as_batch(self):
        ratio = self.seen.live / self.batch_perplexity
        assert abs(ratio - 1) <= NEAR, f"live {self.seen.live:.2f}, batch {self.batch_perplexity:.2f}"

    def test_the_base_alone_is_far_above(self):
        assert self.seen.base >= ABOVE * self.batch_perplexity, f"base {self.seen.base}, batch {self.batch_perplexity}"

    def test_after_a_swap_the_next_token_is_a_fresh_servers(self):
        seen = self.seen
        assert seen.uncached.cached == 0 and seen.cached.cached >= BLOCKS, f"{seen.uncached}, then {seen.cached}"
        assert abs(seen.swapped.logprob - self.fresh.logprob) < SAME, f"{seen.swapped}, a fresh server {self.fresh}"
        assert seen.swapped.text == self.fresh.text and seen.swapped.cached == 0, f"{seen.swapped}"
        assert abs(seen.swapped.logprob - seen.cached.logprob) > SAME, "the two generations do not differ: no test"

    def test_no_adapter_is_read_while_tokens_are_made(self):
        read = [name for name in self.seen.opened if name.startswith("adapter_")]  # the daemon may look at its manifest
        assert not read, f"opened while 64 tokens were made: {read}"

    def test_generations_were_pruned_under_the_server(self):
        assert len(set(self.seen.told)) > KEPT, f"told of {self.seen.told}"
        assert self.run.pruned(), f"of {self.seen.told} none was removed"
        assert self.seen.alive_at_the_end, self.seen.log[-3000:]

    def test_both_kills_are_survived(self):
        seen = self.seen
        assert seen.before_kill and seen.restarted == seen.published_at_restart, f"{seen.restarted}"
        assert seen.exit_code == 0, f"exit code {seen.exit_code}"

    def test_only_generations_by_their_own_path_are_told(self):
        generations = self.run.out / "generations"
        for path in self.seen.told:
            assert pathlib.Path(path).parent == generations, path
        assert len(set(self.seen.told)) == len(self.seen.told) or self.seen.restarted in self.seen.told

    def test_the_live_base_is_the_batch_jobs(self):
        ours, theirs = (out / "base-compressed-tensors/model.safetensors" for out in (self.run.out, self.batch.out))
        assert ours.read_bytes() == theirs.read_bytes(), "the two bases differ"

    def test_a_fresh_server_measures_the_same(self):
        assert abs(self.fresh_live / self.seen.live - 1) < SAME, f"{self.fresh_live}, {self.seen.live}"
