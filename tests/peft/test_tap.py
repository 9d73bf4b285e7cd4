"""The tap as the README uses it feeds the daemon. What it records: tests/models/test_tap_*.py."""

import torch
from daemon import manifest
from fixture import evaluation_tokens, linear_names, load_model
from hugging_face import Tap
from readme import TAP, code_block
from safetensors.torch import load_file, save_file

LINES_AT_MOST = 3
USE = "...  # use the model as always: model(**batch), model.generate(...)"


class Parallel(torch.nn.Module):
    """Layers that read one input under names that no table knows."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.own = (torch.nn.Linear(32, n, bias=False) for n in (32, 48, 8))

    def forward(self, x, attention_mask=None):
        return self.left(x), self.right(x), self.own(x + 1)


class TapTests:
    def __init__(self, daemon, readme):
        self.daemon, self.readme = daemon, readme

    def record(self, name, calls):
        """A fresh model with the tap, called once for each of `calls`; returns the folder."""
        folder = self.daemon.work / name
        folder.mkdir()
        model = load_model()
        with torch.no_grad(), Tap(model, f"{folder}/", strict=True):
            for call in calls:
                call(model)
        assert not list(folder.glob(".*")), "a file was left under its temporary name"
        return folder

    def check(self, folder, rows):
        published = manifest(self.daemon.once(activations=folder))
        layers = {layer["name"]: layer for layer in published["layers"]}
        assert published["inputs"]["full_precision_model"] is True
        assert layers.keys() == set(linear_names(load_model()))
        for name, layer in layers.items():
            assert layer["status"] != "starved" and layer["rows"] == rows, f"{name}: {layer}"

    def test_three_lines_of_the_readme(self):
        lines = code_block(self.readme, TAP, "python")
        assert len(lines.splitlines()) <= LINES_AT_MOST and lines.count(USE) == 1, lines
        folder = self.daemon.work / "tap-readme"
        folder.mkdir()
        tokens = evaluation_tokens()[:4]
        lines = lines.replace('"activations"', "folder").replace(USE, "model(input_ids=tokens)")
        exec(compile(lines, "README.md", "exec"), dict(model=load_model(), folder=folder, tokens=tokens))
        self.check(folder, tokens.numel())

    def test_forward_calls_feed_every_layer(self):
        tokens = evaluation_tokens()[:16]
        folder = self.record("tap-forward", [lambda m, t=t: m(input_ids=t) for t in tokens.split(4)])
        shards = sorted(folder.glob("*.safetensors"))
        assert len(shards) == 4
        shard = load_file(shards[0])
        assert len(shard) == 16, f"one key for each distinct input, not {sorted(shard)}"
        assert {(tuple(x.shape[:2]), x.dtype) for x in shard.values()} == {((4, 128), torch.float32)}
        self.check(folder, tokens.numel())

    def test_tap_leaves_the_result_alone(self):
        tokens, results = evaluation_tokens()[:2], []
        self.record("tap-result", [lambda m: results.append(m(input_ids=tokens).logits)])
        with torch.no_grad():
            assert torch.equal(results[0], load_model()(input_ids=tokens).logits)

    def test_layers_of_unknown_names_share_their_input(self):
        folder, checkpoint = self.daemon.work / "tap-parallel", self.daemon.work / "parallel"
        folder.mkdir(), checkpoint.mkdir()
        torch.manual_seed(0)
        model = Parallel()
        save_file(model.state_dict(), checkpoint / "model.safetensors")
        with torch.no_grad(), Tap(model, folder, strict=True):
            for _ in range(3):
                model(torch.randn(2, 64, 32))
        layers = manifest(self.daemon.once(activations=folder, checkpoint=checkpoint))["layers"]
        assert {layer["name"]: layer["rows"] for layer in layers} == {"left": 384, "right": 384, "own": 384}

    def test_padding_is_left_out(self):
        tokens, others = evaluation_tokens()[:16].split(8)  # the same shard twice would count once
        mask = torch.ones_like(tokens)
        mask[:4, :50] = 0  # padded on the left, as for generation
        calls = [lambda m: m(input_ids=tokens, attention_mask=mask), lambda m: m(others, mask)]
        folder = self.record("tap-padding", calls)
        self.check(folder, 2 * int(mask.sum()))

    def test_generation_feeds_every_layer(self):
        tokens = evaluation_tokens()[:4, :64]
        options = dict(attention_mask=torch.ones_like(tokens), max_new_tokens=9, min_new_tokens=9, do_sample=False)
        folder = self.record("tap-generation", [lambda m: m.generate(tokens, **options)])
        self.check(folder, 4 * (64 + 8))  # the last token that comes out never goes in
