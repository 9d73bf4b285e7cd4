"""The tap with sums: what is in the sums and what stays rows are together what the layers were
given, each row once."""

import contextlib
import io
import json

import torch
from folders import Folders
from hugging_face import Tap
from record import is_linear
from safetensors.torch import load_file
from test_tap_rows import drawn, llama
from truth import Truth, recorded, said, shards

# How far f32 products over at most 512 rows leave an entry off, of sqrt(R_ii R_jj):
# docs/numbers.md.
ENTRY = 3e-6
PARTS = ("xtx", "xtx_rows", "abs_sum", "batch_max_mean_abs")


def totals(rows):
    """x^T x, the sum of |x|, how many: of rows, in f64."""
    x = rows.double()
    return x.T @ x, x.abs().sum(0), len(x)


def summed(folder):
    """Name of each layer -> what all sums of its input say: x^T x, the sum of |x|, the largest
    batch mean, rows."""
    sums = {}
    for shard in shards(folder):
        tensors = load_file(shard)
        for group in json.loads(said(shard)["qera.shares"]):
            for key in [name for name in group if f"{name}::xtx" in tensors]:
                packed, rows, absolute, largest = (tensors[f"{key}::{part}"] for part in PARTS)
                m = len(absolute)
                full = torch.zeros(m, m, dtype=torch.float64)
                full[torch.ones(m, m).triu().bool()] = packed.double()
                for name in group:
                    before = sums.get(name, (0, 0, torch.zeros(m), 0))
                    sums[name] = (
                        before[0] + full + full.triu(1).T,
                        before[1] + absolute,
                        torch.maximum(before[2].double(), largest),
                        before[3] + int(rows),
                    )
    return sums


def rows_of(folder):
    """As `recorded`, of shards that have rows."""
    other = folder.parent / f"{folder.name}-rows"
    other.mkdir()
    for shard in shards(folder):
        if not any(name.endswith("::xtx") for name in load_file(shard)):
            (other / shard.name).hardlink_to(shard)
    return recorded(other)


def check(folder, truth, counts=lambda name, x: None):
    """Rows and sums of each layer are what it was given; returns the rows that stayed, by name."""
    sums, rows = summed(folder), rows_of(folder)
    assert sums.keys() | rows.keys() == truth.fed(), (sums.keys() | rows.keys()) ^ truth.fed()
    for name in truth.fed():
        real = truth.rows(name, counts)
        xtx, absolute, count = totals(real)
        there = [totals(rows[name])] if name in rows else []
        if name in sums:
            there.append((sums[name][0], sums[name][1], sums[name][3]))
        assert sum(part[2] for part in there) == count, f"{name}: {[part[2] for part in there]} rows, not {count}"
        scale = xtx.diag().sqrt()
        error = (sum(part[0] for part in there) - xtx).abs() / (scale[:, None] * scale).clamp(min=1e-300)
        assert error.max() <= ENTRY, f"{name}: {error.max()}"
        assert torch.allclose(sum(part[1] for part in there), absolute, rtol=1e-6), name
    return rows


class TapSumsTests(Folders):
    def __init__(self, daemon):
        super().__init__(daemon, "tap-sums")
        self.daemon = daemon

    def record(self, model, calls, masks=lambda seed: {}, **options):
        """The folder, what the tap said and what was really read, of so many calls."""
        folder, told, truth = self.folder(), io.StringIO(), Truth(model, is_linear)
        options = {"sums": True} | options
        with contextlib.redirect_stderr(told), Tap(model, folder, **options):
            for seed in range(calls):
                model(input_ids=drawn(4, seed=seed), **masks(seed))
        truth.stop()
        truth.calls.pop("lm_head", None)  # tied
        return folder, told.getvalue(), truth

    def test_rows_and_sums_are_all_rows(self):
        for dtype in (torch.float32, torch.bfloat16):
            for mode in (torch.no_grad, torch.inference_mode):
                model = llama().to(dtype)
                with mode():
                    folder, told, truth = self.record(model, 24)
                assert not told, told
                rows = check(folder, truth)
                real = truth.rows("model.layers.0.self_attn.q_proj")
                # One of sixteen blocks, each a whole sequence.
                share = len(rows["model.layers.0.self_attn.q_proj"]) / len(real)
                assert 0.9 / 16 <= share <= 1.1 / 16, share

    def test_products_are_of_f32_numbers_under_autocast(self):
        model, folder = llama(), self.folder()
        truth = Truth(model, is_linear)
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16), Tap(model, folder, sums="cpu"):
            for seed in range(5):
                model(input_ids=drawn(4, seed=seed))
        truth.stop()
        truth.calls.pop("lm_head", None)
        check(folder, truth)

    def test_padding_is_in_no_sum(self):
        lengths = torch.tensor([3, 9, 16, 12])

        def mask(seed):
            tokens = drawn(4, seed=seed)
            return {"attention_mask": (torch.arange(tokens.shape[1]) < lengths[:, None]).long()}

        model = llama()
        with torch.no_grad():
            folder, told, truth = self.record(model, 12, mask)
        assert not told, told
        counts = lambda name, x: mask(0)["attention_mask"]
        check(folder, truth, counts)
        # The largest mean of a sequence, of those that were summed, is of rows that count.
        for name, (_, _, largest, _) in summed(folder).items():
            means = [x[i][:n].double().abs().mean(0) for x in truth.calls[name] for i, n in enumerate(lengths)]
            means = torch.stack(means)
            assert (largest <= means.amax(0) * (1 + 1e-6)).all(), name
            assert (largest >= means.median(0).values).all(), name

    def test_sums_are_written_after_so_many_tokens(self):
        with torch.no_grad():
            folder, _, truth = self.record(llama(), 20, sum_rows=200)
            whole, _, _ = self.record(llama(), 20)
        with_sums = lambda at: [s for s in shards(at) if any("::xtx" in name for name in load_file(s))]
        assert len(with_sums(folder)) > 3 and len(with_sums(whole)) == 1
        check(folder, truth)
        for shard in with_sums(folder)[:-1]:
            counts = [int(rows) for name, rows in load_file(shard).items() if name.endswith("::xtx_rows")]
            assert 200 <= max(counts) < 200 + 4 * 16, counts

    def test_what_shares_an_input_may_change(self):
        """A layer that reads another tensor from some call on has sums of its own from there on."""

        class Changing(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.second, self.apart = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8), False

            def forward(self, x):
                return self.first(x) + self.second(x + 1 if self.apart else x)

        model, folder = Changing(), self.folder()
        truth, generator = Truth(model, is_linear), torch.Generator().manual_seed(1)
        with torch.no_grad(), Tap(model, folder, sums=True):
            for call in range(40):
                model.apart = call >= 20
                model(torch.randn(2, 6, 8, generator=generator))
        truth.stop()
        check(folder, truth)

    def test_numbers_that_are_none_are_in_no_sum(self):
        model, folder, told = torch.nn.Sequential(torch.nn.Linear(8, 8)), self.folder(), io.StringIO()
        truth = Truth(model, is_linear)
        bad = [torch.full((2, 6, 8), value) for value in (float("nan"), float("inf"), 1e18)]
        with torch.no_grad(), contextlib.redirect_stderr(told), Tap(model, folder, sums=True):
            for call in range(20):
                model(torch.full((2, 6, 8), 1.0 + call))
            for x in bad:
                model(x)
        truth.stop()
        truth.calls["0"] = truth.calls["0"][:20]
        check(folder, truth)
        assert "NaN or infinite values, or some above 2^57" in told.getvalue(), told.getvalue()

    def test_sums_wait_for_room(self):
        """What finds no room is not lost while the tap records."""
        model, folder, told = torch.nn.Sequential(torch.nn.Linear(64, 8)), self.folder(), io.StringIO()
        truth = Truth(model, is_linear)
        with torch.no_grad(), contextlib.redirect_stderr(told):
            tap = Tap(model, folder, sums=True, sum_rows=20, max_bytes=6000)
            for call in range(30):
                model(torch.full((2, 6, 64), 1.0 + call))
            assert "they wait" in told.getvalue(), told.getvalue()
            tap.folder.max_bytes = 10**6
            tap.close()
        truth.stop()
        kept = rows_of(folder).get("0", torch.zeros(0, 64))
        found = summed(folder)["0"]
        # Calls for which a shard of rows had no room are counted, and not in the sums either.
        assert found[3] + len(kept) == tap.rows, (found[3], len(kept), tap.rows)

    def test_the_daemon_takes_sums(self):
        """A correction from sums and blocks is that from all rows."""
        model, checkpoint = llama(), self.folder()
        model.save_pretrained(checkpoint)
        with torch.no_grad():
            both, _, _ = self.record(model, 32)
            rows, _, _ = self.record(model, 32, sums=False)
        options = ["--quantizer", "mxint3", "--rank", "4", "--block-size", "8", "--shrinkage", "0.1"]
        errors = []
        for activations in (both, rows):
            out = self.daemon.once(*options, activations=activations, checkpoint=checkpoint)
            manifest = json.loads((out / "current/qera_manifest.json").read_text())
            errors.append({layer["name"]: layer["error"]["with"] for layer in manifest["layers"]})
        assert errors[0].keys() == errors[1].keys()
        for name, error in errors[0].items():
            assert abs(error / errors[1][name] - 1) < 1e-4, (name, error, errors[1][name])

    def test_options_are_checked(self):
        model = torch.nn.Sequential(torch.nn.Linear(8, 8))
        for options in ({"sum_rows": 0}, {"sum_rows": 1.5}, {"sums": "nowhere"}):
            try:
                Tap(model, self.folder(), **options)
            except (ValueError, RuntimeError):
                continue
            raise AssertionError(options)
