"""The README's hook, run as it stands, feeds the daemon."""

import json

import torch
import transformers
from daemon import manifest
from fixture import evaluation_tokens, linear_names, load_model
from readme import define_hook, hook_source
from safetensors import safe_open
from safetensors.torch import load_file, save_file

LINES_AT_MOST = 15


class Parallel(torch.nn.Module):
    """Layers that read one input under names that no table knows."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.own = (torch.nn.Linear(32, n, bias=False) for n in (32, 48, 8))

    def forward(self, x, attention_mask=None):
        return self.left(x), self.right(x), self.own(x + 1)


class Wrapped(torch.nn.Module):
    """As torch.compile and DistributedDataParallel hold a model: under a name of theirs."""

    def __init__(self, name, model):
        super().__init__()
        setattr(self, name, model)
        self.name = name

    def forward(self, x, attention_mask=None):
        return getattr(self, self.name)(x, attention_mask)


def tiny_gpt2():
    sizes = dict(vocab_size=64, n_positions=32, n_embd=16, n_layer=1, n_head=2)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)).eval()


def tiny_t5():
    sizes = dict(vocab_size=64, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2)
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes)).eval()


class HookTests:
    def __init__(self, daemon, readme):
        self.daemon, self.readme = daemon, readme

    def record(self, name, calls):
        """A fresh model with the hook, called once for each of `calls`; returns the folder."""
        folder = self.daemon.work / name
        folder.mkdir()
        model = load_model()
        define_hook(self.readme)(model, f"{folder}/")
        with torch.no_grad():
            for call in calls:
                call(model)
        assert not list(folder.glob("*.part")), "a file was left under its temporary name"
        return folder

    def check(self, folder, rows):
        published = manifest(self.daemon.once(activations=folder))
        layers = {layer["name"]: layer for layer in published["layers"]}
        assert published["inputs"]["full_precision_model"] is True
        assert layers.keys() == set(linear_names(load_model()))
        for name, layer in layers.items():
            assert layer["status"] != "starved" and layer["rows"] == rows, f"{name}: {layer}"

    def test_hook_is_short(self):
        count = len(hook_source(self.readme).splitlines())
        assert count <= LINES_AT_MOST, f"the hook has {count} lines"

    def test_forward_calls_feed_every_layer(self):
        tokens = evaluation_tokens()[:16]
        folder = self.record("hook-forward", [lambda m, t=t: m(input_ids=t) for t in tokens.split(4)])
        shards = sorted(folder.glob("*.safetensors"))
        assert len(shards) == 4
        shard = load_file(shards[0])
        assert len(shard) == 16, f"one key for each distinct input, not {sorted(shard)}"
        assert {(tuple(x.shape[:2]), x.dtype) for x in shard.values()} == {((4, 128), torch.bfloat16)}
        self.check(folder, tokens.numel())

    def test_hook_leaves_the_result_alone(self):
        tokens, results = evaluation_tokens()[:2], []
        self.record("hook-result", [lambda m: results.append(m(input_ids=tokens).logits)])
        with torch.no_grad():
            assert torch.equal(results[0], load_model()(input_ids=tokens).logits)

    def test_layers_of_unknown_names_share_their_input(self):
        folder, checkpoint = self.daemon.work / "hook-parallel", self.daemon.work / "parallel"
        folder.mkdir(), checkpoint.mkdir()
        torch.manual_seed(0)
        model = Parallel()
        save_file(model.state_dict(), checkpoint / "model.safetensors")
        define_hook(self.readme)(model, str(folder))
        with torch.no_grad():
            for _ in range(3):
                model(torch.randn(2, 64, 32))
        layers = manifest(self.daemon.once(activations=folder, checkpoint=checkpoint))["layers"]
        assert {layer["name"]: layer["rows"] for layer in layers} == {"left": 384, "right": 384, "own": 384}

    def metadata(self, name, model, call):
        """What the shard of one call says of itself, and its keys."""
        folder = self.daemon.work / name
        folder.mkdir()
        define_hook(self.readme)(model, f"{folder}/")
        with torch.no_grad():
            call(model)
        (shard,) = folder.glob("*.safetensors")
        with safe_open(shard, "pt") as file:
            return file.metadata(), set(file.keys())

    def test_metadata_name_class_and_linears(self):
        """The tied head is none; an untied one is."""
        for tied in (True, False):
            model = load_model()
            if not tied:
                model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
            tokens = evaluation_tokens()[:1]
            metadata, keys = self.metadata(f"hook-tied-{tied}", model, lambda m: m(tokens))
            names = [*linear_names(model), *([] if tied else ["lm_head"])]
            expected = []
            for name in names:
                out, width = model.get_submodule(name).weight.shape
                expected.append({"name": name, "in": width, "out": out, "transposed": False})
            by_name = sorted(json.loads(metadata["qera.linears"]), key=lambda linear: names.index(linear["name"]))
            assert by_name == expected, metadata["qera.linears"]
            assert metadata["qera.class"] == "LlamaForCausalLM", metadata["qera.class"]
            assert ("lm_head" in keys) == (not tied), sorted(keys)

    def test_conv1d_is_recorded_and_said_to_be_transposed(self):
        metadata, keys = self.metadata("hook-conv1d", tiny_gpt2(), lambda m: m(torch.arange(32)[None]))
        block, widths = "transformer.h.0", {"attn.c_attn": (16, 48), "attn.c_proj": (16, 16)}
        widths |= {"mlp.c_fc": (16, 64), "mlp.c_proj": (64, 16)}
        expected = [
            {"name": f"{block}.{name}", "in": i, "out": o, "transposed": True} for name, (i, o) in widths.items()
        ]
        assert json.loads(metadata["qera.linears"]) == expected, metadata["qera.linears"]
        assert metadata["qera.class"] == "GPT2LMHeadModel" and keys == {one["name"] for one in expected}, keys

    def test_class_of_a_wrapped_model_is_that_inside(self):
        for name in ("_orig_mod", "module"):
            model, tokens = Wrapped(name, load_model()), evaluation_tokens()[:1]
            metadata, keys = self.metadata(f"hook{name}", model, lambda m, t=tokens: m(t))
            assert metadata["qera.class"] == "LlamaForCausalLM", metadata["qera.class"]
            assert keys and all(key.startswith(f"{name}.model.layers.") for key in keys), sorted(keys)

    def test_encoder_decoder_is_recorded_without_masks(self):
        """Its `attention_mask` is the encoder's: no decoder layer's rows are masked by it."""
        model, given = tiny_t5(), dict(input_ids=torch.arange(8)[None], decoder_input_ids=torch.arange(12)[None])
        given["attention_mask"] = torch.tensor([[1, 1, 1, 1, 1, 1, 0, 0]])
        metadata, keys = self.metadata("hook-t5", model, lambda m: m(**given))
        assert len(keys) == 11 and not any(key.endswith("::mask") for key in keys), sorted(keys)
        crossing = [f"decoder.block.0.layer.1.EncDecAttention.{name}" for name in "kv"]
        assert crossing in json.loads(metadata["qera.shares"]), metadata["qera.shares"]

    def test_padding_is_left_out(self):
        tokens, others = evaluation_tokens()[:16].split(8)  # the same shard twice would count once
        mask = torch.ones_like(tokens)
        mask[:4, :50] = 0  # padded on the left, as for generation
        calls = [lambda m: m(input_ids=tokens, attention_mask=mask), lambda m: m(others, mask)]
        folder = self.record("hook-padding", calls)
        self.check(folder, 2 * int(mask.sum()))

    def test_generation_feeds_every_layer(self):
        tokens = evaluation_tokens()[:4, :64]
        options = dict(attention_mask=torch.ones_like(tokens), max_new_tokens=9, min_new_tokens=9, do_sample=False)
        folder = self.record("hook-generation", [lambda m: m.generate(tokens, **options)])
        self.check(folder, 4 * (64 + 8))  # the last token that comes out never goes in
