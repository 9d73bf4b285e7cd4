"""The table of listed architectures, held against the classes of Transformers: with nothing said
but config.json's model_type, the layers are those of the class, and those that are joined read the
same rows."""

import json
import subprocess

from architectures import (
    ARCHITECTURES,
    BART_SIZES,
    BERT_LIKE,
    BLOCKS,
    GPT2_SIZES,
    GROUPED,
    HEADS,
    HIDDEN,
    LLAMA_LIKE,
    T5_SIZES,
    UNTIED,
    WIDE,
    Architecture,
)
from daemon import manifest
from record import Recorder, linears
from safetensors.torch import save_file

SHARDS, SEQUENCES, SEED = 2, 8, 5
FEATURES, SEQ_TO_SEQ = "FEATURE_EXTRACTION", "SEQ_2_SEQ_LM"
MOE = dict(
    num_experts=4,
    moe_intermediate_size=32,
    shared_expert_intermediate_size=32,
    decoder_sparse_step=2,
)
GPT_NEO_SIZES = dict(
    hidden_size=HIDDEN,
    num_layers=BLOCKS,
    num_heads=HEADS,
    attention_types=[[["global", "local"], 1]],
    max_position_embeddings=64,
)
DISTILBERT_SIZES = dict(
    dim=HIDDEN, hidden_dim=WIDE, n_layers=BLOCKS, n_heads=HEADS, max_position_embeddings=64
)
MARIAN_SIZES = BART_SIZES | dict(pad_token_id=0, decoder_start_token_id=0, eos_token_id=1)

# Beside those whose adapters are tried as well.
LISTED = ARCHITECTURES | {
    "starcoder2": Architecture("Starcoder2ForCausalLM", LLAMA_LIKE | GROUPED | UNTIED),
    "qwen2_moe": Architecture("Qwen2MoeForCausalLM", LLAMA_LIKE | GROUPED | UNTIED | MOE),
    "gptj": Architecture("GPTJForCausalLM", GPT2_SIZES | UNTIED | dict(rotary_dim=4)),
    "gpt_bigcode": Architecture("GPTBigCodeForCausalLM", GPT2_SIZES),
    "gpt_neo": Architecture("GPTNeoForCausalLM", GPT_NEO_SIZES),
    "openai-gpt": Architecture("OpenAIGPTLMHeadModel", GPT2_SIZES),
    "imagegpt": Architecture("ImageGPTForCausalImageModeling", GPT2_SIZES, None),
    "xlm-roberta": Architecture("XLMRobertaModel", BERT_LIKE, FEATURES),
    "camembert": Architecture("CamembertModel", BERT_LIKE, FEATURES),
    "distilbert": Architecture("DistilBertModel", DISTILBERT_SIZES, FEATURES),
    "mt5": Architecture("MT5ForConditionalGeneration", T5_SIZES | UNTIED, SEQ_TO_SEQ),
    "mbart": Architecture("MBartForConditionalGeneration", BART_SIZES, SEQ_TO_SEQ),
    "pegasus": Architecture("PegasusForConditionalGeneration", BART_SIZES, SEQ_TO_SEQ),
    "marian": Architecture("MarianMTModel", MARIAN_SIZES, SEQ_TO_SEQ),
    "m2m_100": Architecture("M2M100ForConditionalGeneration", BART_SIZES, SEQ_TO_SEQ),
}
# Layers outside of the blocks: a shard must name them.
BESIDE_BLOCKS = {"pooler.dense", "model.decoder.project_in", "model.decoder.project_out"}
HEADS_BY_NAME = {"lm_head", "embed_out"}
# Inputs that the table leaves apart, because not every model of the type shares them: what
# attention and feed-forward of a block read (falcon), router, shared expert and its gate
# (qwen2_moe).
APART = {"falcon": BLOCKS, "qwen2_moe": 2}


class ListedTests:
    def __init__(self, daemon, name):
        self.daemon, self.name, self.architecture = daemon, name, LISTED[name]
        self.folder = daemon.work / f"listed-{name}"
        self.folder.mkdir()

    def test_layers_and_inputs_are_those_of_the_class(self):
        model = self.architecture.save(self.folder / "checkpoint")
        inputs = self.record(model)
        out = self.daemon.once(
            "--rank",
            "2",
            "--block-size",
            "16",
            activations=self.folder / "shards",
            checkpoint=self.folder / "checkpoint",
        )
        layers = manifest(out)["layers"]
        # A shard in which joined layers differ would have been set aside, and `once` raised.
        assert {layer["served_as"] for layer in layers} == set(linears(model)) - HEADS_BY_NAME
        recorded = {layer["name"] for layer in layers}
        plan = self.plan()
        listed = {layer["name"] for layer in plan["layers"]}
        assert listed == recorded - BESIDE_BLOCKS, sorted(listed ^ recorded)
        heads = sum(names[0] in HEADS_BY_NAME for names in inputs)
        sites = len(inputs) - heads - len(recorded & BESIDE_BLOCKS)
        assert len(plan["sites"]) == sites + APART.get(self.name, self.sides())

    def sides(self):
        """Key and value of every block read the encoder's output, which the table joins block by
        block."""
        return BLOCKS - 1 if self.architecture.task_type == SEQ_TO_SEQ else 0

    def record(self, model):
        """Every layer's rows under its own key, without any metadata; returns who reads what."""
        recorder, shards = Recorder(model), self.folder / "shards"
        shards.mkdir()
        for index, batch in enumerate(self.architecture.batches(SHARDS, SEQUENCES, SEED)):
            recorder.run(**batch)
            taken = recorder.take()
            rows = {name: x.clone() for names, x in taken for name in names}
            save_file(rows, shards / f"{index}.safetensors", self.about(model))
        return [names for names, _ in taken]

    def about(self, model):
        """What must be said: of one that no automatic class loads, its own."""
        return {"qera.class": type(model).__name__} if self.name == "imagegpt" else None

    def plan(self):
        """What `plan` takes for the layers before there is any shard."""
        command = [self.daemon.binary, "plan", "--log-format", "json"]
        command += ["--checkpoint", self.folder / "checkpoint"]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
