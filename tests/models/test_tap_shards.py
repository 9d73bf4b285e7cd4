"""The tap: what its shards say of the model, how many there are, and what it does when something is
missing."""

import contextlib
import io
import json
import os
import resource
import subprocess
import sys

import peft
import torch
import transformers
from architectures import ARCHITECTURES
from folders import Folders
from hugging_face import Tap
from record import is_linear
from safetensors import safe_open
from test_tap_masks import whisper
from test_tap_rows import SMALL, drawn, llama
from truth import recorded, said, shards

ROOT_OF_TAPS = os.path.dirname(sys.modules["hugging_face"].__file__)
PROCESS = """
import os, sys, torch
from hugging_face import Tap
model = torch.nn.Sequential(torch.nn.Linear(4, 4))
if sys.argv[2] == "distributed":
    rank, meet = int(os.environ["RANK"]), f"file://{sys.argv[1]}.meet"
    torch.distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=2)
    model = torch.nn.parallel.DistributedDataParallel(model)
with Tap(model, sys.argv[1]):
    model(torch.full((2, 4), float(os.environ["RANK"])))
"""


class Compiled(torch.nn.Module):
    """As torch.compile holds a model."""

    def __init__(self, model):
        super().__init__()
        self._orig_mod = model

    def forward(self, *given, **more):
        return self._orig_mod(*given, **more)


def masked_language_model():
    return transformers.BertForMaskedLM(transformers.BertConfig(**SMALL, max_position_embeddings=64)).eval()


class TapShardsTests(Folders):
    def __init__(self, daemon):
        super().__init__(daemon, "tap-shards")

    def record(self, model, calls=1, **options):
        """The folder, what the tap said, and the tap, of so many calls of a model that reads
        tokens."""
        folder, told = self.folder(), io.StringIO()
        with torch.no_grad(), contextlib.redirect_stderr(told), Tap(model, folder, **options) as tap:
            for seed in range(calls):
                model(input_ids=drawn(seed=seed))
        return folder, told.getvalue(), tap

    def linears(self, folder):
        return {one["name"]: one for one in json.loads(said(shards(folder)[0])["qera.linears"])}

    def test_linear_layers_are_listed(self):
        for name in ("llama", "gpt2"):
            model = ARCHITECTURES[name].make()
            listed = self.linears(self.record(model)[0])
            tied = {"gpt2": {"lm_head"}, "llama": set()}[name]
            modules = {name: module for name, module in model.named_modules() if is_linear(module)}
            assert listed.keys() == modules.keys() - tied, sorted(listed.keys() ^ modules.keys())
            for one in listed.values():
                axes = ("in", "out") if one["transposed"] else ("out", "in")
                assert [one[axis] for axis in axes] == list(modules[one["name"]].weight.shape), one
                assert one["transposed"] == (not isinstance(modules[one["name"]], torch.nn.Linear)), one

    def test_tied_heads_are_left_out_whatever_they_are_called(self):
        made = {"proj_out": whisper(), "cls.predictions.decoder": masked_language_model(), "lm_head": llama()}
        for head, model in made.items():
            tap = Tap(model, self.folder())
            tap.close()
            assert head in tap.left_out, tap.left_out
            assert head not in {one["name"] for one in json.loads(tap.metadata["qera.linears"])}, head

    def test_layers_of_one_parameter_are_left_out(self):
        """An adapter of one would not be on the other."""
        model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
        model[2].weight = model[0].weight
        folder = self.folder()
        with Tap(model, folder):
            model(torch.randn(3, 8))
        assert recorded(folder).keys() == self.linears(folder).keys() == {"1"}

    def test_names_are_those_of_the_model_inside(self):
        adapted = peft.get_peft_model(llama(), peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
        plain, _, _ = self.record(llama())
        wrapped = {
            "compiled": Compiled(llama()),
            "parallel": torch.nn.DataParallel(llama()),
            "both": torch.nn.DataParallel(Compiled(llama())),
            "a compiled block": llama(),
            "adapted": adapted,
        }
        layers = wrapped["a compiled block"].model.layers
        layers[1] = Compiled(layers[1])
        for label, model in wrapped.items():
            folder, _, _ = self.record(model)
            assert len(shards(folder)) == 1, label
            assert recorded(folder).keys() == recorded(plain).keys(), (label, sorted(recorded(folder)))
            about, expected = said(shards(folder)[0]), said(shards(plain)[0])
            assert about["qera.linears"] == expected["qera.linears"], label
            assert about["qera.class"] == "LlamaForCausalLM", label

    def test_class_task_and_source(self):
        tasks = {"llama": "CAUSAL_LM", "gpt2": "CAUSAL_LM", "t5": "SEQ_2_SEQ_LM", "bert": None}
        for name, task in tasks.items():
            model = ARCHITECTURES[name].make()
            tap = Tap(model, self.folder())
            tap.close()
            assert tap.metadata["qera.source"] == "full-precision", tap.metadata
            assert tap.metadata["qera.class"] == type(model).__name__, tap.metadata
            assert tap.metadata.get("qera.task_type") == task, tap.metadata
        _, _, tap = self.record(llama(), source="quantized")
        assert tap.metadata["qera.source"] == "quantized"

    def test_model_is_named_by_its_folder(self):
        """As the daemon does; a name on a hub is not the folder's that it lies in."""
        checkpoint = self.folder() / "my-model"
        ARCHITECTURES["llama"].save(checkpoint)
        names = {str(checkpoint): "my-model", f"{checkpoint}/": "my-model", "somebody/my-model": None}
        model = ARCHITECTURES["llama"].load(checkpoint)
        for source, name in names.items():
            model.config._name_or_path = source
            tap = Tap(model, self.folder())
            tap.close()
            assert tap.metadata.get("qera.model") == name, (source, tap.metadata.get("qera.model"))

    def test_slices_of_a_tensor_parallel_engine_are_said_to_be_such(self):
        model = llama()
        model._tp_size = 2
        assert said(shards(self.record(model)[0])[0])["qera.tp_size"] == "2"

    def test_inputs_that_were_once_apart_stay_apart(self):
        """The daemon's sites are fixed by the first shards."""

        class Sometimes(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b, self.c = (torch.nn.Linear(8, 8) for _ in range(3))

            def forward(self, x, apart):
                return self.a(x) + self.b(x + 0 if apart else x) + self.c(x)

        model, folder = Sometimes(), self.folder()
        with Tap(model, folder):
            for apart in (False, True, False):
                model(torch.randn(3, 8), apart)
        groups = [sorted(map(sorted, json.loads(said(shard)["qera.shares"]))) for shard in shards(folder)]
        assert groups == [[["a", "b", "c"]], [["a", "c"], ["b"]], [["a", "c"], ["b"]]], groups

    def test_included_layers(self):
        folder, _, _ = self.record(llama(), include="model.layers.1.*")
        with safe_open(shards(folder)[0], "pt") as file:
            assert all(key.startswith("model.layers.1.") for key in file.keys()) and len(list(file.keys())) == 4
        assert len(self.linears(folder)) == 21

    def test_one_call_of_several(self):
        folder, _, tap = self.record(llama(), calls=6, every=3)
        assert len(shards(folder)) == tap.shards == 2

    def test_recording_ends(self):
        model = llama()
        folder, _, tap = self.record(model, calls=5, max_rows=2 * drawn().numel())
        assert len(shards(folder)) == 2 and tap.rows == 2 * drawn().numel()
        assert not any(module._forward_pre_hooks for module in model.modules())

    def test_what_waits_in_the_folder_is_bounded(self):
        folder, _, _ = self.record(llama())
        size = shards(folder)[0].stat().st_size
        model, told = llama(), io.StringIO()
        with torch.no_grad(), contextlib.redirect_stderr(told), Tap(model, folder, max_bytes=int(2.5 * size)) as tap:
            for seed in range(1, 5):
                model(drawn(seed=seed))
            assert len(shards(folder)) == 2 and tap.dropped_shards == 3
            shards(folder)[0].unlink()  # as the daemon does
            model(drawn(seed=5))
        assert said(shards(folder)[-1])["qera.dropped_shards"] == "3"
        assert told.getvalue().count("is full") == 1 and "3 calls were not recorded, 2 were" in told.getvalue()

    def test_the_daemons_pause_is_obeyed(self):
        folder, model, told = self.folder(), llama(), io.StringIO()
        pause = folder / ".qera-pause"
        pause.touch()
        with torch.no_grad(), contextlib.redirect_stderr(told), Tap(model, folder) as tap:
            for seed in range(3):
                model(drawn(seed=seed))
            assert not shards(folder) and tap.dropped_shards == 3
            pause.unlink()  # as the daemon does
            tap.folder.looked -= 2
            model(drawn(seed=4))
            assert len(shards(folder)) == 1
        assert told.getvalue().count("is full (qera-daemon asks for a pause)") == 1, told.getvalue()

    def test_shards_appear_whole(self):
        """Under a hidden name first; of a tap that was killed such a file is left, and the next one
        removes it."""
        folder = self.folder()
        left = folder / ".tap-1-0-1-000001.part"
        left.write_bytes(b"half")
        model, seen = llama(), []
        rename = os.rename
        os.rename = lambda a, b: (seen.append((a.name, [p.name for p in shards(folder)])), rename(a, b))
        try:
            with torch.no_grad(), Tap(model, folder):
                model(drawn())
        finally:
            os.rename = rename
        assert [(name[:5], others) for name, others in seen] == [(".tap-", [])], seen
        assert len(list(folder.iterdir())) == 1

    def test_ranks_write_beside_each_other(self):
        """Processes that run the model on their own batches, with and without torch.distributed."""
        for how in ("alone", "distributed"):
            folder, ranks = self.folder(), range(2)
            environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
            path = os.pathsep.join([ROOT_OF_TAPS, os.environ.get("PYTHONPATH", "")])
            command = [sys.executable, "-c", PROCESS, folder, how]
            running = [
                subprocess.Popen(command, env=environment | {"RANK": str(rank), "PYTHONPATH": path}) for rank in ranks
            ]
            assert [process.wait(60) for process in running] == [0, 0]
            by_rank = {shard.name.split("-")[1]: shard for shard in shards(folder)}
            assert by_rank.keys() == {"0", "1"}, by_rank
            assert sorted(recorded(folder)["0"].flatten().tolist()) == 8 * [0.0] + 8 * [1.0]

    def test_a_missing_folder(self):
        model = llama()
        for strict in (False, True):
            with self.refused(FileNotFoundError, "is no folder"):
                Tap(model, self.work / "nowhere", strict=strict)
        assert not any(module._forward_pre_hooks for module in model.modules())

    def test_a_model_without_linear_layers(self):
        with self.refused(ValueError, "has no linear layer"):
            Tap(torch.nn.Embedding(4, 4), self.folder())

    @contextlib.contextmanager
    def refused(self, kind, words):
        try:
            yield
        except kind as error:
            assert words in str(error), error
        else:
            raise AssertionError(f"no {kind.__name__}")

    @contextlib.contextmanager
    def full_disk(self):
        """No file may be larger than a page."""
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    def test_a_full_disk_is_said_once_and_stops_nothing(self):
        folder, model, told = self.folder(), llama(), io.StringIO()
        with torch.no_grad(), contextlib.redirect_stderr(told), Tap(model, folder) as tap:
            with self.full_disk():
                results = [model(drawn()).logits for _ in range(2)]
            assert not list(folder.iterdir()) and tap.dropped_shards == 2
            model(drawn())  # there is room again
        assert torch.equal(*results) and said(shards(folder)[0])["qera.dropped_shards"] == "2"
        assert told.getvalue().count("takes no shard") == 1, told.getvalue()

    def test_a_folder_that_vanishes(self):
        folder, model, told = self.folder(), llama(), io.StringIO()
        with torch.no_grad(), contextlib.redirect_stderr(told), Tap(model, folder):
            folder.rmdir()
            [model(drawn()) for _ in range(3)]
            folder.mkdir()
            model(drawn())
        assert len(shards(folder)) == 1 and told.getvalue().count("takes no shard") == 1, told.getvalue()

    def test_strict_raises_each_time(self):
        folder, model = self.folder(), llama()
        with torch.no_grad(), Tap(model, folder, strict=True), self.full_disk():
            for _ in range(2):
                with self.refused(RuntimeError, "takes no shard"):
                    model(drawn())

    def test_a_fault_of_the_tap_itself_stops_nothing(self):
        model, told = llama(), io.StringIO()
        with torch.no_grad(), contextlib.redirect_stderr(told), Tap(model, self.folder()) as tap:
            tap._groups = lambda calls: calls["no such name"]
            assert torch.equal(model(drawn()).logits, model(drawn()).logits)
        assert told.getvalue().count("KeyError") == 1, told.getvalue()
