"""Adapters that are loaded in place are read once a change.

vLLM 0.32 keeps `load_inplace` in the request that stands for an adapter's name, so that each step
of the engine reads it from disk again, and fails when the folder has gone. In the API server the
flag is cleared once the adapter is loaded; in the worker, steps never load in place, and what an
evicted adapter is read from again is its newest folder. `GET /v1/models` then says so under the key
`qera`: who swaps adapters may load in place, under a new path.
"""

import copy
import functools
import inspect

from . import VERSION


class Swaps:
    """What is loaded in place. `paths`: adapter's id -> its newest folder."""

    def __init__(self):
        self.paths, self.listeners = {}, []

    def loaded(self, request):
        """An adapter was loaded in place."""
        self.paths[request.lora_int_id] = request.lora_path
        for listener in self.listeners:
            listener(request.lora_int_id)

    def is_stale(self, request):
        path = self.paths.get(request.lora_int_id, request.lora_path)
        return request.load_inplace or request.lora_path != path

    def current(self, request):
        """The request as a step may have it. The scheduler's own stays as it is: its blocks are
        keyed by it."""
        if not self.is_stale(request):
            return request
        request = copy.copy(request)
        request.load_inplace = False
        request.lora_path = self.paths.get(request.lora_int_id, request.lora_path)
        return request


def mend_server(module, switch):
    """`vllm.entrypoints.openai.models.serving`, in the API server."""
    kind = module.OpenAIServingModels
    load, models = kind.load_lora_adapter, kind.show_available_models
    if not (inspect.iscoroutinefunction(load) and inspect.iscoroutinefunction(models)):
        return

    def clear(server, name):
        kept = server.lora_requests.get(name)
        if kept is not None:
            kept.load_inplace = False

    @functools.wraps(load)
    async def load_lora_adapter(self, request, *arguments, **options):
        answer = await load(self, request, *arguments, **options)
        switch.guarded(clear, self, request.lora_name)
        return answer

    def sign(answer):
        answer.qera = {"plugin": VERSION, "swaps_in_place": True}

    @functools.wraps(models)
    async def show_available_models(self, *arguments, **options):
        answer = await models(self, *arguments, **options)
        switch.guarded(sign, answer)
        return answer

    kind.load_lora_adapter, kind.show_available_models = load_lora_adapter, show_available_models


def mend_worker(module, switch, swaps):
    """`vllm.lora.worker_manager`, in the worker."""
    kind = module.LRUCacheWorkerLoRAManager
    add, apply = kind.add_adapter, kind._apply_adapters

    @functools.wraps(add)
    def add_adapter(self, request):
        loaded = add(self, request)
        if request.load_inplace:
            switch.guarded(swaps.loaded, request)
        return loaded

    def renewed(requests):
        if any(request is not None and swaps.is_stale(request) for request in requests):
            return {request if request is None else swaps.current(request) for request in requests}
        return requests

    @functools.wraps(apply)
    def _apply_adapters(self, requests):
        new = switch.guarded(renewed, requests)
        return apply(self, requests if new is None else new)

    kind.add_adapter, kind._apply_adapters = add_adapter, _apply_adapters
