"""Classes that look to the tap like vLLM's: linear layers, wrappers for adapters, model runners,
schedules."""

from types import SimpleNamespace

import torch
from qera_vllm.modules import Kinds

HIDDEN, HEADS, PAIRS, WIDE, BLOCKS = 48, 4, 2, 112, 2


class LinearBase(torch.nn.Module):
    """vLLM's layers return their output and a bias."""

    def __init__(self, width, outputs, dtype=torch.float32, tp_size=1):
        super().__init__()
        self.input_size, self.output_size, self.tp_size = width, sum(outputs), tp_size
        self.weight = torch.nn.Parameter(torch.randn(sum(outputs), width, dtype=dtype) / 10)

    def forward(self, x):
        return x @ self.weight.T, None


class ReplicatedLinear(LinearBase):
    pass


class MergedColumnParallelLinear(LinearBase):
    def __init__(self, width, outputs, **options):
        super().__init__(width, outputs, **options)
        self.output_sizes = outputs


class QKVParallelLinear(LinearBase):
    def __init__(self, width, size, heads, pairs, **options):
        super().__init__(width, [heads * size, pairs * size, pairs * size], **options)
        self.head_size, self.total_num_heads, self.total_num_kv_heads = size, heads, pairs
        self.output_sizes = [heads * size, pairs * size * 2, pairs * size * 2]  # as with ranks that have copies


class RowParallelLinear(LinearBase):
    input_is_parallel = True


class BaseLayerWithLoRA(torch.nn.Module):
    """Calls its layer's kernel, not the layer."""

    def __init__(self, layer):
        super().__init__()
        self.base_layer = layer

    def forward(self, x):
        return type(self.base_layer).forward(self.base_layer, x)


class MoERunner(torch.nn.Module):
    def forward(self, x):
        return x


KINDS = Kinds(LinearBase, BaseLayerWithLoRA, RowParallelLinear)


class Attention(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        size = HIDDEN // HEADS
        self.qkv_proj = QKVParallelLinear(HIDDEN, size, HEADS, PAIRS, **options)
        self.o_proj = RowParallelLinear(HIDDEN, [HIDDEN], **options)

    def forward(self, x):
        fused, _ = self.qkv_proj(x)
        return self.o_proj(fused[:, :HIDDEN].contiguous())[0]


class Mlp(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.gate_up_proj = MergedColumnParallelLinear(HIDDEN, [WIDE, WIDE], **options)
        self.down_proj = RowParallelLinear(WIDE, [HIDDEN], **options)

    def forward(self, x):
        fused, _ = self.gate_up_proj(x)
        return self.down_proj(fused[:, :WIDE].sigmoid() * fused[:, WIDE:])[0]


class Block(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.self_attn, self.mlp = Attention(**options), Mlp(**options)

    def forward(self, x):
        x.add_(self.self_attn(x))  # in place, as fused kernels do
        return x.add_(self.mlp(x))


class Inner(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.layers = torch.nn.ModuleList(Block(**options) for _ in range(BLOCKS))


class Model(torch.nn.Module):
    """A decoder. `rows`: by token, as an embedding has them."""

    packed_modules_mapping = {
        "qkv_proj": ["q_proj", "k_proj", "v_proj"],
        "gate_up_proj": ["gate_proj", "up_proj"],
    }

    def __init__(self, wrapped=False, dtype=torch.float32, **options):
        super().__init__()
        torch.manual_seed(0)
        self.dtype, self.rows = dtype, torch.randn(1000, HIDDEN).to(dtype)
        self.model = Inner(dtype=dtype, **options)
        if wrapped:
            wrap(self)

    def forward(self, input_ids, positions=None, intermediate_tensors=None, inputs_embeds=None):
        x = self.rows[input_ids]
        for block in self.model.layers:
            x = block(x)
        return x


def wrap(module):
    for name, child in module._modules.items():
        if isinstance(child, LinearBase):
            module._modules[name] = BaseLayerWithLoRA(child)
        else:
            wrap(child)


def layers(model):
    """Name in the model -> the module whose forward the model calls."""
    names = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
    return {name: module for name, module in model.named_modules() if name.endswith(names)}


def listen(model):
    """An independent recording: forward is replaced. Name -> what it was called with, in order."""
    heard = {}
    for name, module in layers(model).items():
        forward = module.forward

        def replaced(x, name=name, forward=forward):
            heard.setdefault(name, []).append(x.clone())
            return forward(x)

        module.forward = replaced
    return heard


def configuration(folder="/nowhere/model", **changes):
    """What the tap reads of vLLM's configuration. `changes`: `part__name=value`."""
    config = SimpleNamespace(
        compilation_config=SimpleNamespace(mode=SimpleNamespace(name="NONE"), cudagraph_mode=None),
        parallel_config=SimpleNamespace(
            pipeline_parallel_size=1, prefill_context_parallel_size=1, use_ubatching=False
        ),
        cache_config=SimpleNamespace(kv_sharing_fast_prefill=False),
        scheduler_config=SimpleNamespace(max_num_batched_tokens=256),
        model_config=SimpleNamespace(
            model=str(folder),
            dtype=torch.float32,
            quantization=None,
            hf_config=SimpleNamespace(architectures=["LlamaForCausalLM"]),
        ),
        speculative_config=None,
    )
    for name, value in changes.items():
        part, _, entry = name.partition("__")
        setattr(getattr(config, part) if entry else config, entry or part, value)
    return config


class Lora:
    def __init__(self, number, path, load_inplace=False, name="qera"):
        self.lora_name, self.lora_int_id, self.lora_path, self.load_inplace = name, number, str(path), load_inplace


def new(key, start=0, lora=None, prompt_logprobs=None):
    sampling = SimpleNamespace(prompt_logprobs=prompt_logprobs)
    return SimpleNamespace(req_id=key, num_computed_tokens=start, lora_request=lora, sampling_params=sampling)


def schedule(tokens, news=(), finished=(), resumed=None):
    """A scheduler's output. `tokens`: request's id -> how many of its tokens; `resumed`: id ->
    position."""
    resumed = resumed or {}
    cached = SimpleNamespace(
        req_ids=list(resumed), resumed_req_ids=set(resumed), num_computed_tokens=list(resumed.values())
    )
    return SimpleNamespace(
        scheduled_new_reqs=list(news),
        scheduled_cached_reqs=cached,
        finished_req_ids=set(finished),
        num_scheduled_tokens=tokens,
        total_num_scheduled_tokens=sum(tokens.values()),
    )


class Runner:
    """What both runners have in common. Requests lie in the reverse order of the schedule, and rows
    are padded to a multiple of eight."""

    device = torch.device("cpu")

    def __init__(self, model, config=None):
        self.model, self.vllm_config, self.seed = model, config or configuration(), 0
        self.passed = []

    def get_model(self):
        return self.model

    def batch(self, output):
        order = list(output.num_scheduled_tokens)[::-1]
        total = output.total_num_scheduled_tokens
        padded = -(-total // 8) * 8
        self.seed += 1
        ids = torch.randint(0, 1000, (padded,), generator=torch.Generator().manual_seed(self.seed))
        return SimpleNamespace(req_ids=order, num_tokens_after_padding=padded, input_ids=ids)


class FirstRunner(Runner):
    def execute_model(self, scheduler_output, intermediate_tensors=None):
        if not scheduler_output.total_num_scheduled_tokens:
            self._dummy_run(16)
            return None
        self.input_batch = self.batch(scheduler_output)
        with torch.inference_mode():
            ids = self.input_batch.input_ids
            if self.embeds:
                out = self._model_forward(None, None, None, inputs_embeds=ids)
            else:
                out = self._model_forward(input_ids=ids, positions=None)
        self.passed.append(out)
        return out

    input_batch, embeds = None, False

    def _model_forward(self, input_ids=None, positions=None, intermediate_tensors=None, inputs_embeds=None):
        return self.model(inputs_embeds if input_ids is None else input_ids, positions)

    def _dummy_run(self, rows):
        self.model(input_ids=torch.zeros(rows, dtype=torch.long))

    warm_up = _dummy_run


class SecondRunner(Runner):
    def execute_model(self, scheduler_output, intermediate_tensors=None, dummy_run=False):
        if not scheduler_output.total_num_scheduled_tokens:
            return None
        if dummy_run:
            ids = torch.zeros(scheduler_output.total_num_scheduled_tokens, dtype=torch.long)
            return self.model(input_ids=ids)
        batch = self.prepare_inputs(scheduler_output)
        with torch.inference_mode():
            out = self.model(input_ids=batch.input_ids)
        self.passed.append(out)
        return out

    def prepare_inputs(self, scheduler_output):
        return self.batch(scheduler_output)

    def warm_up(self, rows):
        self.execute_model(schedule({"warm": rows}), dummy_run=True)
