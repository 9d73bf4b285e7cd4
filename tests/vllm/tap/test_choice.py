"""Which requests are recorded."""

import json
from collections import Counter

from qera_vllm.lora_swap import Swaps
from qera_vllm.requests import Choice, is_ours
from served import Served
from stand_ins import Lora, Model, new


class ChoiceTests:
    def __init__(self, work):
        self.work, self.number = work, 0
        work.mkdir()
        self.ours, self.other = self.adapter("ours", True), self.adapter("other", False)

    def adapter(self, name, ours):
        folder = self.work / name
        folder.mkdir()
        (folder / "adapter_config.json").write_text("{}")
        if ours:
            (folder / "qera_manifest.json").write_text("{}")
        return folder

    def recorded(self, *news, **settings):
        """The lengths of the shards that requests leave which have 40, 41, ... tokens, and the
        tap."""
        self.number += 1
        served = Served(self.work / f"shards{self.number}", model=Model(wrapped=True), **settings)
        served.step({data.req_id: 40 + at for at, data in enumerate(news)}, *news)
        served.end(*(data.req_id for data in news))
        return sorted(shard.length for shard in served.shards()), served

    def requests(self):
        return new("base"), new("ours", lora=Lora(1, self.ours)), new("other", lora=Lora(2, self.other, name="x"))

    def test_without_an_adapter_or_with_ours(self):
        for which, lengths in (("all", [40, 41]), ("base", [40]), ("adapter", [41])):
            found, served = self.recorded(*self.requests(), which=which)
            assert found == lengths, (which, found)
            assert sum(served.recorder.counts.requests.values()) == 3 - len(lengths), served.recorder.counts

    def test_the_source_is_said(self):
        _, served = self.recorded(*self.requests())
        base, ours = sorted(served.shards(), key=lambda shard: shard.length)
        assert "qera.source_adapter" not in base.metadata
        assert ours.metadata["qera.source_adapter"] == str(self.ours)
        assert base.metadata["qera.source_base"] == "/nowhere/model"

    def test_what_is_ours(self):
        assert is_ours(self.ours) and not is_ours(self.other) and not is_ours(self.work / "none")
        broken = self.adapter("broken", True)
        (broken / "adapter_config.json").write_text("{")
        assert not is_ours(broken)

    def test_own_requests_and_prompt_logprobs_never(self):
        keys = ["qera-1", "cmpl-qera-2-0-ab", "chatcmpl-qera-3-ab", "1_cmpl-qera-4"]
        keys += ["generate-tokens-qera-5", "embd-qera-6"]
        news = [new(key) for key in keys] + [new("p", prompt_logprobs=0), new("q", prompt_logprobs=5)]
        lengths, served = self.recorded(*news)
        assert lengths == []
        assert served.recorder.counts.requests == {"qera's own": 6, "prompt_logprobs": 2}
        lengths, _ = self.recorded(new("cmpl-7"), new("not-a-qera"), new("cmpl-the-last-qera-"))
        assert lengths == [40, 41, 42]

    def test_of_so_many_requests_one_is_recorded_whole(self):
        choice = Choice("all", 16)
        keys = [f"cmpl-{number}" for number in range(8000)]
        taken = [key for key in keys if choice.refusal(key, None, None) is None]
        assert 400 < len(taken) < 600, len(taken)
        assert taken == [key for key in keys if Choice("all", 16).refusal(key, None, None) is None]
        served = Served(self.work / "every", every=4)
        names = [f"r{number}" for number in range(40)]
        for key in names:
            served.step({key: 30}, new(key))
        for _ in range(5):
            served.step({key: 1 for key in names})
        served.end(*names)
        wanted = [key for key in names if Choice("all", 4).refusal(key, None, None) is None]
        assert 3 <= len(wanted) <= 20
        assert [shard.length for shard in served.shards()] == [35] * len(wanted)
        first = served.heard["model.layers.0.mlp.down_proj"]
        want = {first[names.index(key)][0, 0].item() for key in wanted}
        assert {shard.tensors["model.layers.0.mlp.down_proj"][0, 0, 0].item() for shard in served.shards()} == want
        reasons = Counter(served.recorder.counts.requests)
        assert reasons == {"by QERA_TAP_EVERY": 40 - len(wanted)}

    def test_few_and_many_chosen_rows_of_a_step_are_those_of_the_requests(self):
        """One after the other they are copied in ways of their own."""
        for chosen in (2, 9):
            served = Served(self.work / f"chosen{chosen}")
            keys = [f"r{number}" for number in range(20)]
            own = set(keys[: 2 * chosen : 2])
            news = [new(key, prompt_logprobs=None if key in own else 1) for key in keys]
            served.step({key: 32 + at for at, key in enumerate(keys)}, *news)
            served.end(*keys)
            heard = served.heard["model.layers.1.self_attn.o_proj"][0]
            at, wants = 0, {}
            for number in reversed(range(20)):  # the stand-in's order
                wants[keys[number]] = heard[at : at + 32 + number]
                at += 32 + number
            got = {shard.length: shard.tensors["model.layers.1.self_attn.o_proj"][0] for shard in served.shards()}
            assert len(got) == chosen
            for key in own:
                assert got[len(wants[key])].equal(wants[key])

    def test_a_request_is_cut_where_its_adapter_is_swapped(self):
        swaps = Swaps()
        served = Served(self.work / "swapped", model=Model(wrapped=True), swaps=swaps)
        newer = self.adapter("newer", True)
        served.step({"a": 40, "b": 33}, new("a", lora=Lora(1, self.ours)), new("b"))
        swaps.loaded(Lora(1, newer, load_inplace=True))
        served.step({"a": 1, "b": 1, "c": 50}, new("c", lora=Lora(1, self.ours)))  # it came with the old request
        served.end("a", "b", "c")
        shards = {shard.length: shard for shard in served.shards()}
        assert sorted(shards) == [34, 40, 50]
        assert shards[40].metadata["qera.source_adapter"] == str(self.ours)
        assert shards[50].metadata["qera.source_adapter"] == str(newer)
        assert served.rows() == {"adapter swapped": 1}

    def test_shares_and_linears_are_all_of_the_model(self):
        _, served = self.recorded(new("a"))
        metadata = served.only_shard().metadata
        shares, linears = json.loads(metadata["qera.shares"]), json.loads(metadata["qera.linears"])
        assert sorted(sum(shares, [])) == sorted(entry["name"] for entry in linears) and len(linears) == 14
        assert metadata["qera.class"] == "LlamaForCausalLM" and metadata["qera.task_type"] == "CAUSAL_LM"
        assert metadata["qera.source"] == "full-precision"
