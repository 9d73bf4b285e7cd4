"""The same models under other names, with less said of them, and with layers that got no row."""

import json

import torch
import transformers
from architectures import (
    ARCHITECTURES,
    BLOCKS,
    HEADS,
    HIDDEN,
    SEQUENCE,
    VOCABULARY,
    WIDE,
    Architecture,
    draw,
    tokens,
)
from daemon import manifest
from hugging_face import Tap
from published import (
    OPTIONS,
    Unseen,
    adapter,
    check_base_weights,
    check_changed,
    check_layer_errors,
    check_layer_outputs,
    check_output_error,
    expected_linears,
    load_by_readme,
    load_on,
    readme_block,
    tensors,
)
from record import linears, listed, metadata, record
from safetensors.torch import load_file

SHARDS, SEQUENCES = 8, 8
UNSEEN_SEED = 1


class Variants:
    """What the suites below share: one folder for each case."""

    def __init__(self, daemon):
        self.daemon = daemon

    def folder(self, name):
        self.daemon.work.joinpath(name).mkdir()
        return self.daemon.work / name

    def once(self, folder, model, batches, about, **options):
        """Records `model` beside the checkpoint in `folder`, which is corrected; returns OUT."""
        shards = record(model, batches, folder / "shards", about, **options)
        return self.daemon.once(*OPTIONS, activations=shards, checkpoint=folder / "checkpoint")

    def check(self, out, model, loaded, architecture):
        """Of the serving class's layers exactly these (all but the head) are corrected, well."""
        loaded.check_keys()
        found, expected = set(loaded.layers()), expected_linears(model)
        assert found == expected, f"not in both: {sorted(found ^ expected)}"
        unseen = Unseen(model, architecture.batches(2, SEQUENCES, UNSEEN_SEED))
        check_layer_errors(unseen, loaded)
        check_layer_outputs(unseen, loaded, adapter(out))
        check_output_error(unseen, loaded)
        self.daemon.verify(out)


class NameTests(Variants):
    """The names in the shards are not those of the checkpoint."""

    def wrapped(self, label, rename):
        """A llama whose every name is changed by `rename`, as recorded."""
        folder, architecture = self.folder(f"wrapped-{label}"), ARCHITECTURES["llama"]
        model = architecture.save(folder / "checkpoint")
        about = metadata(model) | {"qera.linears": json.dumps(listed(model, rename))}
        out = self.once(
            folder, model, architecture.batches(SHARDS, SEQUENCES, 0), about, rename=rename
        )
        self.check(out, model, load_by_readme(out), architecture)

    def test_compiled_model(self):
        self.wrapped("compiled", lambda name: f"_orig_mod.{name}")

    def test_data_parallel_model(self):
        self.wrapped("parallel", lambda name: f"module.{name}")

    def test_model_inside_peft(self):
        self.wrapped("peft", lambda name: f"base_model.model.{name}")

    def test_names_of_weights(self):
        self.wrapped("weights", lambda name: f"{name}.weight")

    def bodies(self, family, saved, recorded, class_said):
        """The causal model, or its body without the head, as checkpoint and as what is recorded."""
        label = f"{family}-{saved}-{recorded}-{class_said}"
        folder, architecture = self.folder(label), ARCHITECTURES[family]
        model = architecture.make().to(architecture.dtype)
        parts = {"causal": model, "body": model.transformer}
        parts[saved].save_pretrained(folder / "checkpoint", safe_serialization=True)
        model.float()
        about = metadata(parts[recorded])
        if not class_said:
            del about["qera.class"]
        out = self.once(folder, parts[recorded], architecture.batches(SHARDS, SEQUENCES, 0), about)
        loaded = load_by_readme(out)
        serving = recorded if class_said else "causal"
        body = type(model.transformer).__name__
        said = f"{body}.from_pretrained" in readme_block(out)
        assert said == (serving == "body"), readme_block(out)
        self.check(out, parts[serving], loaded, architecture)

    def test_recorded_body_of_a_causal_checkpoint(self):
        for family in ("bloom", "falcon"):
            self.bodies(family, "causal", "body", class_said=False)

    def test_recorded_causal_model_of_a_checkpoint_of_its_body(self):
        for family in ("bloom", "falcon"):
            self.bodies(family, "body", "causal", class_said=True)

    def test_served_body_of_a_causal_checkpoint(self):
        self.bodies("bloom", "causal", "body", class_said=True)

    def test_recorded_body_of_a_checkpoint_of_it_is_served_as_causal(self):
        self.bodies("bloom", "body", "body", class_said=False)


class LittleSaidTests(Variants):
    """Shards or checkpoints that say less."""

    def test_transposed_weights_without_config(self):
        """Only `qera.linears` says that the weights are [in, out]."""
        folder, architecture = self.folder("no-config"), ARCHITECTURES["gpt2"]
        model = architecture.save(folder / "checkpoint")
        for path in (folder / "checkpoint").glob("*.json"):
            path.unlink()
        out = self.once(folder, model, architecture.batches(SHARDS, SEQUENCES, 0), metadata(model))
        base = type(model)(model.config).eval()
        left = base.load_state_dict(tensors(out / "base"), strict=False)
        assert not left.unexpected_keys and set(left.missing_keys) <= {"lm_head.weight"}, left
        check_base_weights(model, base, expected_linears(model))
        self.check(out, model, load_on(base, out), architecture)


class ClassifierTests(Variants):
    """PEFT keeps a copy of a classifier's head beside each adapter and gives it no LoRA (its pull
    request 2481; before that, both): tensors for it would not be applied."""

    def classifier(self, class_name, family, body):
        folder, architecture = self.folder(class_name), ARCHITECTURES[family]
        sizes = architecture.sizes | dict(num_labels=5, pad_token_id=0)
        classified = Architecture(class_name, sizes, "SEQ_CLS")
        model = classified.save(folder / "checkpoint")
        about = metadata(model, "SEQ_CLS")
        out = self.once(folder, model, classified.batches(SHARDS, SEQUENCES, 0), about)
        task = json.loads((out / "current/adapter_config.json").read_text())["task_type"]
        assert task == "SEQ_CLS", task
        block = readme_block(out)
        assert f"{class_name}.from_pretrained" in block, block
        loaded = load_by_readme(out)
        loaded.check_keys()
        names = {name for name in linears(model) if name.startswith(f"{body}.")}
        assert set(loaded.layers()) == names, sorted(set(loaded.layers()) ^ names)
        check_changed(folder / "checkpoint", out / "base", names)
        unseen = Unseen(model, classified.batches(2, SEQUENCES, UNSEEN_SEED))
        check_layer_errors(unseen, loaded)
        check_output_error(unseen, loaded)

    def test_bert(self):
        self.classifier("BertForSequenceClassification", "bert", "bert")

    def test_roberta_whose_head_has_two_layers(self):
        self.classifier("RobertaForSequenceClassification", "roberta", "roberta")

    def test_llama(self):
        self.classifier("LlamaForSequenceClassification", "llama", "model")


class LoopedTests(Variants):
    """ALBERT has one block, which it calls once for each of its layers, and no list knows it."""

    def test_statistics_are_of_every_call(self):
        sizes = dict(hidden_size=HIDDEN, embedding_size=24, intermediate_size=WIDE, num_attention_heads=HEADS)
        sizes |= dict(num_hidden_layers=4, max_position_embeddings=64, hidden_dropout_prob=0.0)
        folder = self.folder("albert")
        albert = Architecture("AlbertModel", sizes, "FEATURE_EXTRACTION")
        model = albert.save(folder / "checkpoint")
        (folder / "shards").mkdir()
        with torch.no_grad(), Tap(model, folder / "shards", strict=True):
            for batch in albert.batches(SHARDS, SEQUENCES, 0):
                model(**batch)
        out = self.daemon.once(*OPTIONS, activations=folder / "shards", checkpoint=folder / "checkpoint")
        rows = {layer["name"]: layer["rows"] for layer in manifest(out)["layers"]}
        of_block = {n for name, n in rows.items() if ".attention." in name or ".ffn" in name}
        assert of_block == {4 * SHARDS * SEQUENCES * SEQUENCE}, rows
        self.check(out, model, load_by_readme(out), albert)


class CrossAttentionTests(Variants):
    """BLIP's text decoder, which no list knows: query reads the text, key and value the image."""

    def __init__(self, daemon):
        super().__init__(daemon)
        self.root = self.folder("blip")
        sizes = dict(hidden_size=HIDDEN, encoder_hidden_size=HIDDEN, intermediate_size=WIDE)
        sizes |= dict(
            num_hidden_layers=BLOCKS, num_attention_heads=HEADS, max_position_embeddings=64
        )
        config = transformers.BlipTextConfig(vocab_size=VOCABULARY, projection_dim=HIDDEN, **sizes)
        self.model = transformers.BlipTextModel(config, add_pooling_layer=False).eval()
        draw(self.model, seed=0)
        self.model.save_pretrained(self.root / "checkpoint", safe_serialization=True)
        self.unseen = Unseen(self.model, self.batches(2, UNSEEN_SEED))
        names = linears(self.model)
        self.unfed = {
            name
            for name in names
            if name.endswith(("crossattention.self.key", "crossattention.self.value"))
        }
        self.fed = set(names) - self.unfed
        assert len(self.unfed) == 2 * BLOCKS and any(
            "crossattention.self.query" in name for name in self.fed
        )

    def batches(self, count, seed):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(count):
            image = torch.randn(SEQUENCES, SEQUENCE, HIDDEN, generator=generator)
            yield {
                "input_ids": tokens(SEQUENCES, generator),
                "encoder_hidden_states": image,
                "is_decoder": True,
            }

    def corrected(self, label, about, shared=True):
        batches = self.batches(SHARDS, 0)
        keep = self.fed.__contains__
        shards = record(
            self.model, batches, self.root / label, about, keep=keep, shared=shared
        )
        out = self.daemon.once(*OPTIONS, activations=shards, checkpoint=self.root / "checkpoint")
        base = transformers.BlipTextModel.from_pretrained(
            out / "base", add_pooling_layer=False
        ).eval()
        loaded = load_on(base, out)
        loaded.check_keys()
        assert not self.unfed & set(loaded.layers()), (
            f"corrected without a row: {sorted(loaded.layers())}"
        )
        check_layer_errors(self.unseen, loaded)
        return out, loaded

    def test_layers_that_nothing_names_are_left_alone(self):
        """Nothing is said but the keys and the class: each key is a layer, and no other."""
        about = {"qera.class": type(self.model).__name__}
        out, loaded = self.corrected("keys", about, shared=False)
        shard = next((self.root / "keys").glob("*.safetensors"))
        keys = set(load_file(shard))
        assert set(loaded.layers()) == keys, f"not in both: {sorted(set(loaded.layers()) ^ keys)}"
        check_changed(self.root / "checkpoint", out / "base", keys)

    def test_listed_layers_without_a_row_are_quantized_only(self):
        out, loaded = self.corrected("listed", metadata(self.model))
        assert set(loaded.layers()) == self.fed, (
            f"not in both: {sorted(set(loaded.layers()) ^ self.fed)}"
        )
        check_changed(self.root / "checkpoint", out / "base", self.fed | self.unfed)
        base = transformers.BlipTextModel.from_pretrained(out / "base", add_pooling_layer=False)
        check_base_weights(self.model, base, self.unfed)
        check_output_error(self.unseen, loaded)
