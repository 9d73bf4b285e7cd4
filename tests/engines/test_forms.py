"""One correction in three forms, each loaded by the program that it is for: logits of W~ + C, to
float precision."""

import functools
import json
import pathlib
import subprocess

import gguf
import numpy as np
from converted import factors, read_adapter, tensor_of
from corrected import PREFIX, Corrected, Run
from engine import Engine
from llama import Llama
from safetensors.numpy import load_file
from smollm2 import hugging_face_rows

ROOT = pathlib.Path(__file__).resolve().parents[2]
RANK = 8
SEQUENCES = 4
AGREE = 1e-5  # relative, of f32 sums against f64
EFFECT = 1e-3  # what the adapter changes at least
FORMS = ("--rank", RANK, "--dtype", "f32", "--format", "peft,gguf,mlx")


class Served:
    """What a run published, and the W~ that it is for."""

    def __init__(self, folder, out, base):
        self.folder, self.base, self.current = folder, base, out / "current"
        self.corrected = Corrected(out)
        self.modules = {layer["served_as"]: name for name, layer in self.corrected.layers.items()}

    @functools.cached_property
    def checkpoint(self):
        return self.base.write_checkpoint(self.folder / "dense")

    @functools.cached_property
    def gguf(self):
        return self.base.write_gguf(self.folder / "dense.gguf")

    def whole(self):
        """W~ + C."""
        changed = {}
        for name in self.base.layers:
            weight = self.base.weights[f"{name}.weight"].astype(np.float64)
            changed[name] = weight + self.corrected.correction(self.modules[name])
        return self.base.with_linear(changed)


class FormsTests:
    def __init__(self, binary, work, pythons):
        self.binary, self.work, self.pythons = binary, work, pythons
        self.model = Llama.of_folder(ROOT / "fixtures/model")
        self.tokens = load_file(ROOT / "fixtures/evaluation.safetensors")["tokens"][:SEQUENCES].astype(np.int64)
        np.save(work / "tokens.npy", self.tokens)
        ranks = ("--ragged", "--rank-for", "*.down_proj=4", "--rank-for", "*.0.*.q_proj=5")
        self.runs = {
            "made here": self.made_here("mxint3"),
            "ragged": self.made_here("ragged", *ranks),
            "a GGUF of others": self.of_others(),
        }

    def run(self, name, *options):
        folder = self.work / name
        folder.mkdir()
        activations = ROOT / "fixtures/activations"
        common = ("--watch", activations, "--checkpoint", ROOT / "fixtures/model", "--out", folder / "out", "--once")
        Run(self.binary, *common, *FORMS, *options).expect(0)
        return folder

    def made_here(self, name, *options):
        folder = self.run(name, "--quantizer", "mxint3", "--emit-base", *options)
        return Served(folder, folder / "out", Llama.of_folder(folder / "out/base"))

    def of_others(self):
        kind = gguf.GGMLQuantizationType.Q4_0
        path = self.model.write_gguf(self.work / "Q4_0.gguf", lambda _, weight: (kind, gguf.quantize(weight, kind)))
        tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
        changed = {}
        for name in self.model.layers:
            tensor = tensors[tensor_of(name)]
            stored = gguf.dequantize(tensor.data, tensor.tensor_type)
            changed[name] = self.hugging_face(tensor.name, stored)
        folder = self.run("gguf", "--quantized", path)
        return Served(folder, folder / "out", self.model.with_linear(changed))

    def heads(self):
        return {"attn_q": self.model.heads, "attn_k": self.model.kv_heads}

    def hugging_face(self, tensor, weight):
        return hugging_face_rows(tensor, weight, self.heads())

    def logits(self, served, engine):
        """[sequences, tokens, vocabulary] in the engine's own program."""
        if engine == "llama.cpp":
            with Engine(served.gguf, served.current / "adapter.gguf", self.tokens.shape[1], exact=True) as running:
                return np.stack([running.logits(sequence) for sequence in self.tokens])
        adapter = served.current / "mlx" if engine == "mlx" else served.current
        out = served.folder / f"{engine}.npy"
        script = ROOT / f"tests/engines/with_{engine}.py"
        command = [*self.pythons[engine].split(), script, served.checkpoint, adapter, self.work / "tokens.npy", out]
        subprocess.run([str(part) for part in command], check=True)
        return np.load(out)

    def check(self, engine):
        for name, served in self.runs.items():
            found = self.logits(served, engine).astype(np.float64)
            models = served.whole(), served.base
            expected, plain = (np.stack([model.logits(sequence) for sequence in self.tokens]) for model in models)
            size = np.linalg.norm(expected)
            difference, effect = np.linalg.norm(found - expected) / size, np.linalg.norm(plain - expected) / size
            assert difference < AGREE, f"{name}, {engine}: relative difference of the logits {difference:.2e}"
            assert effect > EFFECT, f"{name}: the adapter changes nothing: {effect:.2e}"

    def test_llama_cpp_adds_c(self):
        self.check("llama.cpp")

    def test_mlx_adds_c(self):
        self.check("mlx")

    def test_peft_adds_c(self):
        self.check("peft")

    def test_the_forms_hold_one_correction(self):
        """The GGUF is what the PEFT adapter converts to, the MLX one what it transposes to, each
        number for number."""
        for served in self.runs.values():
            tensors = served.corrected.tensors
            found, metadata = read_adapter(served.current / "adapter.gguf")
            expected = factors(tensors, self.heads())
            assert found.keys() == expected.keys() and len(found) == len(self.model.layers), sorted(found)
            for name, pair in expected.items():
                assert all(np.array_equal(*sides) for sides in zip(found[name], pair)), name
            for key, value in {
                "general.type": "adapter",
                "general.architecture": "llama",
                "adapter.type": "lora",
                "adapter.lora.alpha": 0.0,
            }.items():
                assert metadata[key] == value, (key, metadata)
            mlx = load_file(served.current / "mlx/adapters.safetensors")
            assert len(mlx) == len(tensors), sorted(mlx)
            for key, array in tensors.items():
                module, _, side = key.removeprefix(PREFIX).removesuffix(".weight").rpartition(".lora_")
                found, own = mlx[f"{module}.lora_{side.lower()}"], array.T  # one rank for all there
                assert np.array_equal(found[: own.shape[0], : own.shape[1]], own), key
                assert np.count_nonzero(found) == np.count_nonzero(own), key

    def test_ragged_layers_have_ranks_of_their_own(self):
        tensors = self.runs["ragged"].corrected.tensors
        ranks = {key.split(".", 2)[2]: array.shape[0] for key, array in tensors.items() if key.endswith("lora_A.weight")}
        assert {rank for key, rank in ranks.items() if ".down_proj." in key} == {4}, ranks
        assert ranks["model.layers.0.self_attn.q_proj.lora_A.weight"] == 5, ranks
        assert ranks["model.layers.1.self_attn.q_proj.lora_A.weight"] == RANK, ranks

    def test_mlx_is_told_rank_and_scale(self):
        for served in self.runs.values():
            config = json.loads((served.current / "mlx/adapter_config.json").read_text())
            parameters = config["lora_parameters"]
            assert config["fine_tune_type"] == "lora" and config["num_layers"] == 4, config
            assert (parameters["rank"], parameters["scale"], parameters["dropout"]) == (RANK, 1.0, 0.0), config
            assert sorted(parameters["keys"]) == sorted({name.split(".", 3)[3] for name in self.model.layers}), config
