"""One architecture: recorded, corrected in one run, loaded as the README of the generation says."""

import json

import torch
from daemon import manifest
from hugging_face import Tap
from more_architectures import EVERY_ARCHITECTURE
from published import (
    OPTIONS,
    RANK,
    Unseen,
    adapter,
    check_base_types,
    check_base_weights,
    check_changed,
    check_layer_errors,
    check_layer_outputs,
    check_output_error,
    expected_linears,
    load_by_readme,
    readme_block,
)
from record import is_linear, record
from truth import Truth, check_same

SHARDS, SEQUENCES = 8, 8  # 2,048 rows
UNSEEN_SEED = 1


def expected_tied(model):
    """The head, where its weight is the embedding's."""
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    tied = head is not None and head.weight is table.weight
    return {name for name, module in model.named_modules() if tied and module is head}


class ArchitectureTests:
    def __init__(self, daemon, name):
        self.daemon, self.architecture = daemon, EVERY_ARCHITECTURE[name]
        self.checkpoint = daemon.work / f"{name}-checkpoint"
        self.model = self.architecture.save(self.checkpoint)
        self.linears = expected_linears(self.model)
        self.shards = daemon.work / f"{name}-shards"
        self.shards.mkdir()
        with torch.no_grad(), Tap(self.model, self.shards, strict=True):
            self.truth = Truth(self.model, is_linear)
            for batch in self.architecture.batches(SHARDS, SEQUENCES, seed=0):
                self.model(**batch)
            self.truth.stop()
        self.out = daemon.once(*OPTIONS, activations=self.shards, checkpoint=self.checkpoint)
        self.unseen = Unseen(self.model, self.architecture.batches(2, SEQUENCES, UNSEEN_SEED))
        self.loaded = load_by_readme(self.out)

    def test_every_row_is_recorded_bit_for_bit(self):
        tied = expected_tied(self.model)
        check_same(self.shards, self.truth, names=self.truth.fed() - tied)

    def test_readme_names_the_class(self):
        block, names = readme_block(self.out), [self.architecture.class_name]
        if self.architecture.task_type == "CAUSAL_LM":
            names.append("AutoModelForCausalLM")
        assert any(f"{name}.from_pretrained" in block for name in names), (
            f"none of {names} in\n{block}"
        )

    def test_adapter_has_the_task_type(self):
        config = json.loads((self.out / "current/adapter_config.json").read_text())
        assert config["task_type"] == self.architecture.task_type, config
        assert config["r"] == config["lora_alpha"] == RANK, config

    def test_every_linear_layer_is_corrected_and_no_other(self):
        names = set(self.loaded.layers())
        assert names == self.linears, f"not in both: {sorted(names ^ self.linears)}"
        solved = {
            layer["name"] for layer in manifest(self.out)["layers"] if layer["status"] == "solved"
        }
        assert solved == self.linears, f"not in both: {sorted(solved ^ self.linears)}"

    def test_peft_finds_every_key(self):
        self.loaded.check_keys()

    def test_nothing_else_changes(self):
        check_changed(self.checkpoint, self.out / "base", self.linears)

    def test_base_is_the_quantized_checkpoint(self):
        check_base_weights(self.model, self.architecture.load(self.out / "base"), self.linears)

    def test_base_keeps_types(self):
        check_base_types(self.checkpoint, self.out / "base")

    def test_verify_finds_nothing(self):
        self.daemon.verify(self.out)

    def test_output_error_falls(self):
        check_output_error(self.unseen, self.loaded)

    def test_error_of_each_layer_falls(self):
        check_layer_errors(self.unseen, self.loaded)

    def test_peft_computes_base_plus_correction(self):
        check_layer_outputs(self.unseen, self.loaded, adapter(self.out))


class ListedArchitectureTests(ArchitectureTests):
    """One that the daemon knows by config.json's model_type."""

    def test_plain_keys_give_the_same(self):
        """Without metadata config.json's model_type says what the shards do not."""
        folder, part = self.checkpoint.with_name(f"{self.checkpoint.name}-plain"), {}
        if not self.architecture.joined:
            part = {"part": lambda name: name}
        batches = self.architecture.batches(SHARDS, SEQUENCES, seed=0)
        shards = record(self.model, batches, folder, None, **part)
        out = self.daemon.once(*OPTIONS, activations=shards, checkpoint=self.checkpoint)
        check_changed(self.checkpoint, out / "base", self.linears)
        plain, said = adapter(out), adapter(self.out)
        assert plain.keys() == said.keys(), f"not in both: {sorted(plain.keys() ^ said.keys())}"
        other = [name for name, tensor in said.items() if not torch.equal(tensor, plain[name])]
        assert not other, f"other factors: {other}"
        configs = [published / "current/adapter_config.json" for published in (out, self.out)]
        tasks = [json.loads(path.read_text())["task_type"] for path in configs]
        assert tasks[0] == tasks[1], tasks
