"""What a shard says of itself."""

import json
import os

TASKS = {"ForCausalLM": "CAUSAL_LM", "LMHeadModel": "CAUSAL_LM"}


def is_published(folder):
    """Whether qera-daemon wrote this checkpoint: generations of its adapter lie beside it."""
    return os.path.isdir(os.path.join(os.path.dirname(os.path.realpath(folder)), "generations"))


def constant(model, linears, architecture, quantized):
    """What all shards of a server have in common, but for `qera.shares`. `model`: the path that is
    served."""
    local = os.path.isdir(model)
    derived = quantized or (local and is_published(model))
    about = {
        "qera.linears": json.dumps(linears),
        "qera.source": "quantized" if derived else "full-precision",
        "qera.source_base": os.path.realpath(model) if local else model,
    }
    if architecture:
        about["qera.class"] = architecture
        task = next((task for end, task in TASKS.items() if architecture.endswith(end)), None)
        if task:
            about["qera.task_type"] = task
    if local and not derived:  # a base that was quantized has another name than the checkpoint it was made from
        about["qera.model"] = os.path.basename(os.path.realpath(model))
    return about


class About:
    """The metadata of a shard, by the folder of its adapter and the sites that it has."""

    def __init__(self, constant):
        self.constant = constant

    def __call__(self, adapter, sites):
        shares = json.dumps([site.names for site in sites])
        about = self.constant | {"qera.shares": shares}
        return about | ({"qera.source_adapter": adapter} if adapter else {})
