"""What of a model is linear, and what its checkpoint calls it."""

import torch
from qera_vllm.modules import find
from stand_ins import (
    HIDDEN,
    KINDS,
    WIDE,
    LinearBase,
    MergedColumnParallelLinear,
    Model,
    MoERunner,
    ReplicatedLinear,
    RowParallelLinear,
    wrap,
)


class Mapper:
    """As a model has it whose checkpoint has other prefixes."""

    def __init__(self, prefixes):
        self.orig_to_new_prefix = prefixes

    def get_rename_mapper(self):
        return self

    def map_name(self, name):
        for old, new in self.orig_to_new_prefix.items():
            if name.startswith(old):
                return new + name[len(old) :]
        return name


class ModulesTests:
    @staticmethod
    def keys(model):
        return [site.key for site in find(model, KINDS).sites]

    def test_fused_layers_have_the_checkpoints_names_and_widths(self):
        found = find(Model(), KINDS)
        assert [site.names for site in found.sites[:4]] == [
            [f"model.layers.0.self_attn.{name}_proj" for name in "qkv"],
            ["model.layers.0.self_attn.o_proj"],
            ["model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj"],
            ["model.layers.0.mlp.down_proj"],
        ]
        sizes = {entry["name"].split(".", 3)[3]: (entry["in"], entry["out"]) for entry in found.linears[:7]}
        assert sizes == {
            "self_attn.q_proj": (HIDDEN, HIDDEN),
            "self_attn.k_proj": (HIDDEN, HIDDEN // 2),
            "self_attn.v_proj": (HIDDEN, HIDDEN // 2),
            "self_attn.o_proj": (HIDDEN, HIDDEN),
            "mlp.gate_proj": (HIDDEN, WIDE),
            "mlp.up_proj": (HIDDEN, WIDE),
            "mlp.down_proj": (WIDE, HIDDEN),
        }
        assert [site.index for site in found.sites] == list(range(8)) and not found.left_out

    def test_wrappers_have_the_names_of_what_they_wrap(self):
        plain, wrapped = find(Model(), KINDS), find(Model(wrapped=True), KINDS)
        assert wrapped.linears == plain.linears
        assert [site.names for site in wrapped.sites] == [site.names for site in plain.sites]
        assert all(isinstance(site.module, KINDS.wrapper) for site in wrapped.sites)

    def test_what_the_checkpoint_has_fused_keeps_its_name(self):
        model = Model()
        model.packed_modules_mapping = {"qkv_proj": ["qkv_proj"], "gate_up_proj": ["gate_up_proj"]}
        found = find(model, KINDS)
        assert found.sites[0].names == ["model.layers.0.self_attn.qkv_proj"]
        assert (found.linears[0]["out"], found.linears[2]["out"]) == (2 * HIDDEN, 2 * WIDE)
        model.packed_modules_mapping = {}
        assert find(model, KINDS).linears == found.linears

    def test_parts_of_another_number_are_left_out(self):
        model = Model()
        model.packed_modules_mapping = {"qkv_proj": ["q_proj", "kv_proj"]}
        found = find(model, KINDS)
        assert "packed_modules_mapping" in found.left_out["model.layers.0.self_attn.qkv_proj"], found.left_out
        assert found.sites[0].key == "model.layers.0.self_attn.o_proj"

    def test_experts_and_routers_are_left_out(self):
        for wrapped in (False, True):
            model = Model()
            mlp = model.model.layers[1].mlp = torch.nn.Module()
            mlp.gate, mlp.experts = ReplicatedLinear(HIDDEN, [4]), MoERunner()
            mlp.experts.w13 = LinearBase(HIDDEN, [WIDE])
            mlp.shared_expert = MergedColumnParallelLinear(HIDDEN, [WIDE])
            if wrapped:
                wrap(model)
            found = find(model, KINDS)
            assert set(found.left_out) == {"model.layers.1.mlp.gate", "model.layers.1.mlp.experts"}, found.left_out
            assert [site.key for site in found.sites[6:]] == ["model.layers.1.mlp.shared_expert"]
            assert not any("gate." in entry["name"] or "w13" in entry["name"] for entry in found.linears)

    def test_a_layer_that_is_called_gate_is_one(self):
        model = Model()
        model.model.layers[0].mlp.gate = ReplicatedLinear(HIDDEN, [4])
        assert "model.layers.0.mlp.gate" in self.keys(model)

    def test_sliced_inputs_are_left_out_and_their_layers_listed(self):
        found = find(Model(tp_size=2), KINDS)
        assert [site.key.rsplit(".", 1)[1] for site in found.sites] == ["q_proj", "gate_proj"] * 2
        assert set(name.rsplit(".", 1)[1] for name in found.left_out) == {"o_proj", "down_proj"}
        assert len(found.linears) == 14 and all("tensor parallelism" in text for text in found.left_out.values())
        whole = Model(tp_size=2)
        for module in whole.modules():
            if isinstance(module, RowParallelLinear):
                module.input_is_parallel = False
        assert len(find(whole, KINDS).sites) == 8

    def test_a_tower_beside_the_text_model_is_none_of_it(self):
        model = torch.nn.Module()
        model.visual, model.language_model = Model(), Model()
        model.get_language_model = lambda: model.language_model
        keys = self.keys(model)
        assert len(keys) == 8 and keys[0] == "language_model.model.layers.0.self_attn.q_proj", keys

    def test_prefixes_are_taken_back_to_the_checkpoints(self):
        model = torch.nn.Module()
        model.language_model = Model()
        model.get_language_model = lambda: model.language_model
        model.hf_to_vllm_mapper = Mapper({"model.language_model.": "language_model.model."})
        assert self.keys(model)[0] == "model.language_model.layers.0.self_attn.q_proj"
        model = Model()
        model.hf_to_vllm_mapper = Mapper({"backbone.": "other."})
        assert self.keys(model)[0] == "model.layers.0.self_attn.q_proj"

    def test_two_names_or_none_are_left_out(self):
        model = Model()
        for prefixes in ({"a.": "model.", "b.": "model."}, {"model.": "decoder."}):
            model.hf_to_vllm_mapper = Mapper(prefixes)
            found = find(model, KINDS)
            assert not found.sites and len(found.left_out) == 8, (prefixes, self.keys(model))
