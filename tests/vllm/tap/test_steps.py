"""The rows of a step: equal to an independent recording, bit for bit, and no others."""

import json

import torch
from served import Served, key_of
from stand_ins import WIDE, FirstRunner, Model, SecondRunner, configuration, new, schedule


class StepTests:
    """For each model runner."""

    runner = None

    def __init__(self, work):
        self.work, self.number = work, 0

    def served(self, **options):
        self.number += 1
        return Served(self.work / str(self.number), self.runner, **options)

    @staticmethod
    def check(shard, served, spans):
        """The shard has of each layer the rows of these steps: (step, start, stop)."""
        assert len(shard.tensors) == len(served.heard) == 8
        for name, calls in served.heard.items():
            want = torch.cat([calls[step][start:stop] for step, start, stop in spans])[None]
            got = shard.tensors[key_of(name)]
            assert got.dtype == want.dtype and torch.equal(got, want), f"{name}: {got.shape}, {want.shape}"

    def test_a_prompt_without_its_padding(self):
        for dtype in (torch.float32, torch.bfloat16):
            served = self.served(model=Model(dtype=dtype), config=configuration(model_config__dtype=dtype))
            served.step({"a": 43}, new("a"))
            served.end("a")
            self.check(served.only_shard(), served, [(0, 0, 43)])

    def test_wrapped_layers_as_plain_ones(self):
        served = self.served(model=Model(wrapped=True))
        served.step({"a": 40}, new("a"))
        served.end("a")
        self.check(served.only_shard(), served, [(0, 0, 40)])

    def test_chunks_and_decoded_tokens_are_one_text(self):
        served = self.served()
        served.step({"a": 30}, new("a"))
        served.step({"a": 21})
        for _ in range(9):
            served.step({"a": 1})
        served.end("a")
        spans = [(0, 0, 30), (1, 0, 21), *((2 + step, 0, 1) for step in range(9))]
        self.check(served.only_shard(), served, spans)

    def test_a_text_that_is_longer_than_a_block(self):
        served = self.served()
        assert served.recorder.blocks.rows == 512
        served.step({"a": 700}, new("a"))
        served.step({"a": 600})
        served.end("a")
        self.check(served.only_shard(), served, [(0, 0, 700), (1, 0, 600)])

    def test_two_requests_of_a_step_lie_apart(self):
        served = self.served()
        served.step({"a": 33, "b": 50}, new("a"), new("b"))  # b's rows are the first
        served.step({"a": 1, "b": 1})
        served.step({"b": 1, "c": 37}, new("c"), finished=["a"])
        served.end("b", "c")
        a, b, c = sorted(served.shards(), key=lambda shard: (shard.length != 34, shard.length != 52))
        self.check(a, served, [(0, 50, 83), (1, 1, 2)])
        self.check(b, served, [(0, 0, 50), (1, 0, 1), (2, 37, 38)])
        self.check(c, served, [(2, 0, 37)])

    def test_many_requests_that_decode_together(self):
        served, keys = self.served(), [f"r{number}" for number in range(20)]
        served.step({key: 20 for key in keys}, *map(new, keys))
        for _ in range(60):
            served.step({key: 1 for key in keys})
        served.end(*keys)
        shards = served.shards()
        assert len(shards) == 20 and all(shard.length == 80 for shard in shards)
        places = [{shard.tensors["model.layers.0.self_attn.q_proj"][0, 0, 0].item(): shard for shard in shards}]
        first = served.heard["model.layers.0.self_attn.qkv_proj"][0]
        for at in range(20):
            shard = places[0][first[20 * at, 0].item()]
            self.check(shard, served, [(0, 20 * at, 20 * at + 20), *((1 + s, at, at + 1) for s in range(60))])

    def test_no_row_of_a_dummy_run(self):
        served = self.served()
        served.runner.warm_up(64)
        served.step({"a": 40}, new("a"))
        served.runner.warm_up(64)
        served.step({"a": 1})
        served.end("a")
        shard = served.only_shard()
        assert shard.length == 41
        steps = [s for s, x in enumerate(served.heard["model.layers.0.self_attn.qkv_proj"]) if len(x) in (40, 8)]
        self.check(shard, served, [(steps[0], 0, 40), (steps[1], 0, 1)])

    def test_a_preempted_request_is_not_recorded_twice(self):
        served = self.served()
        served.step({"a": 40}, new("a"))
        served.step({"a": 1})
        if self.runner is FirstRunner:
            served.step({"a": 30}, resumed={"a": 0})
        else:
            served.step({"a": 30}, new("a", 0))
        served.step({"a": 12})
        served.step({"a": 1})
        served.end("a")
        self.check(served.only_shard(), served, [(0, 0, 40), (1, 0, 1), (3, 11, 12), (4, 0, 1)])

    def test_tokens_of_the_prefix_cache_are_not_there(self):
        served = self.served()
        served.step({"a": 35}, new("a", start=64))
        served.end("a")
        self.check(served.only_shard(), served, [(0, 0, 35)])

    def test_the_model_computes_what_it_computes_without(self):
        tapped, plain = self.served(), self.runner(Model())
        for tokens, news in (({"a": 40}, [new("a")]), ({"a": 1, "b": 9}, [new("b")])):
            out = tapped.step(tokens, *news)
            assert torch.equal(out, plain.execute_model(schedule(tokens, news)))

    def test_steps_that_are_not_recorded_pass_no_hook(self):
        served, hooked = self.served(), []
        forward = served.model.forward

        def counted(*arguments, **options):
            hooked.append(sum(len(module._forward_pre_hooks) for module in served.model.modules()))
            return forward(*arguments, **options)

        served.model.forward = counted
        served.step({"qera-a": 40}, new("qera-a"))
        served.step({"b": 40, "qera-a": 1}, new("b"))
        served.step({"b": 1})
        served.step({"qera-a": 1}, finished=["b"])
        served.step({"c": 50}, new("c"))
        served.end("c")
        assert hooked[:5] == [0, 8, 8, 0, 8], hooked
        b, c = sorted(served.shards(), key=lambda shard: shard.length)
        self.check(b, served, [(1, 1, 41), (2, 0, 1)])
        self.check(c, served, [(4, 0, 50)])

    def test_a_model_that_fails_leaves_nothing_behind(self):
        served = self.served()
        served.step({"a": 40}, new("a"))
        forward, served.model.forward = served.model.forward, None
        try:
            served.step({"a": 1})
            raise AssertionError("the model did not fail")
        except TypeError:
            pass
        served.model.forward = forward
        served.step({"b": 600}, new("b"))
        served.end("a", "b")
        assert sorted(shard.length for shard in served.shards()) == [40, 600]
        assert served.switch.on and served.recorder.blocks.out == 0

    def test_what_is_not_called_once_with_all_rows_is_left_out(self):
        model = Model()
        served = self.served(model=model)
        attention, down = model.model.layers[0].self_attn, model.model.layers[0].mlp.down_proj
        model.model.layers[1].mlp.forward = lambda x: x * 0  # never calls its layers
        attention.forward = lambda x: (attention.o_proj(attention.o_proj(x)[0])[0], attention.qkv_proj(x))[0]
        model.model.layers[0].mlp.forward = lambda x: down(torch.zeros(3, WIDE))[0].sum() * 0 + x
        served.step({"a": 40}, new("a"))
        served.step({"a": 40})
        served.end("a")
        shard = served.only_shard()
        # Layer 0: o_proj is called twice, gate_up_proj never, down_proj with other rows.
        assert set(shard.tensors) == {
            "model.layers.0.self_attn.q_proj",
            "model.layers.1.self_attn.q_proj",
            "model.layers.1.self_attn.o_proj",
        }, set(shard.tensors)
        want = torch.cat([x[:40] for x in served.heard["model.layers.0.self_attn.qkv_proj"][:2]])
        assert torch.equal(shard.tensors["model.layers.0.self_attn.q_proj"][0], want)
        said = served.said.getvalue()
        for words in ("layers.0.self_attn.o_proj: left out, it is called twice", "[3, 112], not [40, 112]"):
            assert words in said, said
        assert said.count("gate_proj and model.layers.0.mlp.up_proj: left out, not every step calls it") == 1, said
        assert "model.layers.0.self_attn.o_proj" not in json.loads(shard.metadata["qera.shares"])


class FirstRunnerTests(StepTests):
    runner = FirstRunner

    def test_embeddings_in_place_of_tokens(self):
        served = self.served()
        served.runner.embeds = True
        served.step({"a": 40}, new("a"))
        served.end("a")
        self.check(served.only_shard(), served, [(0, 0, 40)])


class SecondRunnerTests(StepTests):
    runner = SecondRunner
