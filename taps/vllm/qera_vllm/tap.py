"""Puts the tap together for a model that a worker has loaded."""

import torch

from .blocks import Blocks
from .folder import Folder
from .metadata import About, constant
from .modules import Kinds, find
from .recorder import Recorder
from .requests import Choice, Counts, Requests
from .runners import follow, obstacle
from .writer import Writer

STORED = (torch.float32, torch.float16, torch.bfloat16)
NAMED = 4  # in a message


def kinds():
    from vllm.lora.layers import BaseLayerWithLoRA
    from vllm.model_executor.layers.linear import LinearBase, RowParallelLinear

    return Kinds(LinearBase, BaseLayerWithLoRA, RowParallelLinear)


def is_first_rank():
    """Of those that hold slices of the same layers: whole inputs are the same in all of them."""
    from vllm.distributed import get_tensor_model_parallel_rank

    return get_tensor_model_parallel_rank() == 0


def start_tap(runner, settings, switch, swaps):
    """Records what the runner's model reads from now on; says what is left out, or why it
    cannot."""
    if not is_first_rank():
        switch.on = False
        return None
    config = runner.vllm_config
    reason = obstacle(config)
    if reason is None and config.model_config.dtype not in STORED:
        reason = f"the model computes in {config.model_config.dtype}"
    if reason:
        switch.off(reason)
        return None
    found = find(runner.get_model(), kinds())
    say_left_out(switch, found.left_out)
    if not found.sites:
        switch.off("the model has no linear layer that it knows")
        return None
    return assemble(runner, settings, switch, swaps, found)


def assemble(runner, settings, switch, swaps, found):
    config = runner.vllm_config
    model = config.model_config
    device = torch.device(getattr(runner, "device", "cpu"))
    counts = Counts()
    widths = [site.width for site in found.sites]
    step_rows = config.scheduler_config.max_num_batched_tokens
    blocks = Blocks(widths, model.dtype, step_rows, device.type == "cuda")
    architecture = (getattr(model.hf_config, "architectures", None) or [None])[0]
    about = About(constant(model.model, found.linears, architecture, bool(model.quantization)))
    folder = Folder(settings.folder, settings.max_bytes)
    writer = Writer(switch, folder, blocks, found.sites, about, counts)
    requests = Requests(Choice(settings.which, settings.every), counts, swaps.paths)
    recorder = Recorder(switch, settings, found, blocks, writer, requests, device)
    writer.before_close = recorder.flush
    if not follow(runner, recorder, switch):
        switch.off(f"the model runner {type(runner).__name__} has other functions than it knows")
        return None
    swaps.listeners.append(recorder.adapter_changed)
    writer.start()
    layers, inputs = len(found.linears), len(found.sites)
    switch.say("start", f"{inputs} inputs of {layers} linear layers are recorded into {folder.path}")
    return recorder


def say_left_out(switch, left_out):
    """One line a reason."""
    by_reason = {}
    for name, reason in left_out.items():
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        switch.say(("left out", reason), f"left out: {', '.join(names[:NAMED])}{more}: {reason}")
