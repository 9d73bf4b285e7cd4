"""The classes that are tried, each with two blocks and a small vocabulary, and their weights."""

import dataclasses

import torch
import transformers
from record import is_linear

VOCABULARY = 160
SEQUENCE = 32
BLOCKS = 2
HIDDEN, HEADS, WIDE = 48, 4, 112


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A class of Transformers and its sizes. `dtype` is that of the checkpoint; `joined` is false
    where the model_type does not tell which layers of a block read one input."""

    class_name: str
    sizes: dict
    task_type: str = "CAUSAL_LM"
    dtype: torch.dtype = torch.float32
    joined: bool = True

    @property
    def model_class(self):
        return getattr(transformers, self.class_name)

    def make(self, seed=0):
        """A model with drawn weights, in float32."""
        config = self.model_class.config_class(vocab_size=VOCABULARY, **self.sizes)
        model = self.model_class(config).eval()
        draw(model, seed)
        return model

    def save(self, folder, seed=0):
        """Its checkpoint; returns the model as it is read from there, in float32."""
        self.make(seed).to(self.dtype).save_pretrained(folder, safe_serialization=True)
        return self.load(folder)

    def load(self, folder):
        return self.model_class.from_pretrained(folder, torch_dtype=torch.float32).eval()

    def batches(self, count, sequences, seed):
        """Inputs of forward passes; some tokens are much more frequent than others."""
        generator = torch.Generator().manual_seed(seed)
        for _ in range(count):
            batch = {"input_ids": tokens(sequences, generator)}
            if self.task_type == "SEQ_2_SEQ_LM":
                batch["decoder_input_ids"] = tokens(sequences, generator)
            yield batch


def tokens(sequences, generator):
    """The first ids are left out: some models treat them as padding."""
    frequency = 1.0 / torch.arange(1.0, VOCABULARY - 3)
    drawn = torch.multinomial(
        frequency, sequences * SEQUENCE, replacement=True, generator=generator
    )
    return drawn.view(sequences, SEQUENCE) + 4


def draw(model, seed):
    """Weights large enough that what comes out depends on what goes in. Embeddings last: a head
    that is tied to one is an embedding."""
    generator = torch.Generator().manual_seed(seed)

    def normal(parameter, scale, mean=0.0):
        parameter.data = mean + scale * torch.randn(parameter.shape, generator=generator)

    modules = list(model.modules())
    for module in sorted(modules, key=lambda module: isinstance(module, torch.nn.Embedding)):
        for name, parameter in module.named_parameters(recurse=False):
            if is_linear(module) and name == "weight":
                in_axis = 1 if isinstance(module, torch.nn.Linear) else 0
                normal(parameter, parameter.shape[in_axis] ** -0.5)
            elif isinstance(module, torch.nn.Embedding):
                normal(parameter, 1.0)
            elif name == "weight":  # of a norm
                normal(parameter, 0.2, mean=1.0)
            else:
                normal(parameter, 0.1)


BF16, F16 = torch.bfloat16, torch.float16

LLAMA_LIKE = dict(
    hidden_size=HIDDEN,
    intermediate_size=WIDE,
    num_hidden_layers=BLOCKS,
    num_attention_heads=HEADS,
    max_position_embeddings=64,
)
GROUPED = dict(num_key_value_heads=2)
UNTIED = dict(tie_word_embeddings=False)
BERT_LIKE = dict(**LLAMA_LIKE, hidden_dropout_prob=0.0)
PARALLEL = dict(hidden_size=HIDDEN, num_attention_heads=HEADS)
GPT2_SIZES = dict(n_embd=HIDDEN, n_layer=BLOCKS, n_head=HEADS, n_positions=64)
T5_SIZES = dict(
    d_model=HIDDEN, d_kv=12, d_ff=WIDE, num_layers=BLOCKS, num_heads=HEADS, decoder_start_token_id=0
)
BART_SIZES = dict(
    d_model=HIDDEN,
    encoder_layers=BLOCKS,
    decoder_layers=BLOCKS,
    encoder_attention_heads=HEADS,
    decoder_attention_heads=HEADS,
    encoder_ffn_dim=WIDE,
    decoder_ffn_dim=WIDE,
    max_position_embeddings=64,
)

ARCHITECTURES = {
    "llama": Architecture("LlamaForCausalLM", LLAMA_LIKE | GROUPED | UNTIED, dtype=BF16),
    "mistral": Architecture(
        "MistralForCausalLM", LLAMA_LIKE | GROUPED | UNTIED | dict(sliding_window=16), dtype=F16
    ),
    "qwen2": Architecture(
        "Qwen2ForCausalLM", LLAMA_LIKE | GROUPED | dict(tie_word_embeddings=True), dtype=BF16
    ),
    "gemma": Architecture(
        "GemmaForCausalLM", LLAMA_LIKE | dict(num_key_value_heads=1, head_dim=16), dtype=BF16
    ),
    "phi": Architecture("PhiForCausalLM", LLAMA_LIKE | UNTIED, dtype=F16),
    "stablelm": Architecture(
        "StableLmForCausalLM",
        LLAMA_LIKE | GROUPED | UNTIED | dict(use_qkv_bias=True, partial_rotary_factor=0.5),
    ),
    # whether attention and feed-forward have one norm, config.json says elsewhere
    "falcon": Architecture(
        "FalconForCausalLM", PARALLEL | dict(num_hidden_layers=BLOCKS), dtype=BF16, joined=False
    ),
    "gpt2": Architecture("GPT2LMHeadModel", GPT2_SIZES),
    "bloom": Architecture(
        "BloomForCausalLM", dict(hidden_size=HIDDEN, n_layer=BLOCKS, n_head=HEADS), dtype=F16
    ),
    # its q_norm.weight and k_norm.weight are [heads, head_dim]
    "cohere": Architecture("CohereForCausalLM", LLAMA_LIKE | GROUPED | dict(use_qk_norm=True)),
    "olmo": Architecture("OlmoForCausalLM", LLAMA_LIKE | UNTIED),
    "mpt": Architecture(
        "MptForCausalLM", dict(d_model=HIDDEN, n_heads=HEADS, n_layers=BLOCKS, max_seq_len=64)
    ),
    "mixtral": Architecture(
        "MixtralForCausalLM", LLAMA_LIKE | GROUPED | UNTIED | dict(num_local_experts=4), dtype=BF16
    ),
    "gpt_neox": Architecture("GPTNeoXForCausalLM", LLAMA_LIKE | UNTIED | dict(rotary_pct=0.5)),
    "opt": Architecture(
        "OPTForCausalLM", LLAMA_LIKE | dict(ffn_dim=WIDE, word_embed_proj_dim=32), dtype=F16
    ),
    "bert": Architecture("BertModel", BERT_LIKE, "FEATURE_EXTRACTION"),
    "roberta": Architecture("RobertaModel", BERT_LIKE, "FEATURE_EXTRACTION", BF16),
    "t5": Architecture("T5ForConditionalGeneration", T5_SIZES, "SEQ_2_SEQ_LM"),
    "bart": Architecture("BartForConditionalGeneration", BART_SIZES, "SEQ_2_SEQ_LM"),
}
