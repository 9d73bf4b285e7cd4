"""Adapters that are loaded in place: once a change, and never a step's business."""

import asyncio
from types import SimpleNamespace

from qera_vllm import VERSION
from qera_vllm.lora_swap import Swaps, mend_server, mend_worker
from qera_vllm.switch import Switch
from stand_ins import Lora


class Request(Lora):
    """As vLLM has it: equal by name."""

    def __eq__(self, other):
        return self.lora_name == other.lora_name

    def __hash__(self):
        return hash(self.lora_name)


def worker_module():
    class LRUCacheWorkerLoRAManager:
        """Counts what is read from disk; has room for one adapter."""

        def __init__(self):
            self.reads, self.held = [], {}

        def list_adapters(self):
            return set(self.held)

        def _apply_adapters(self, requests):
            for request in requests:
                if request is not None:
                    self.add_adapter(request)

        def add_adapter(self, request):
            if request.lora_int_id not in self.held or request.load_inplace:
                self.reads.append(request.lora_path)
                self.held = {request.lora_int_id: request.lora_path}
            return True

    return SimpleNamespace(LRUCacheWorkerLoRAManager=LRUCacheWorkerLoRAManager)


def serving_module(engine):
    class OpenAIServingModels:
        def __init__(self):
            self.lora_requests = {}

        async def load_lora_adapter(self, request, base_model_name=None):
            if request.lora_path == "refused":
                return "error"
            engine.add_adapter(Request(1, request.lora_path, request.load_inplace))
            self.lora_requests[request.lora_name] = Request(1, request.lora_path, request.load_inplace)
            return "Success"

        async def show_available_models(self):
            return SimpleNamespace(object="list", data=[])

    return SimpleNamespace(OpenAIServingModels=OpenAIServingModels)


class SwapTests:
    def __init__(self):
        self.loaded = []

    def mended(self):
        switch, swaps, worker = Switch(), Swaps(), worker_module()
        swaps.listeners.append(self.loaded.append)
        mend_worker(worker, switch, swaps)
        engine = worker.LRUCacheWorkerLoRAManager()
        serving = serving_module(engine)
        mend_server(serving, switch)
        return switch, engine, serving.OpenAIServingModels()

    def load(self, server, path, load_inplace=True):
        request = SimpleNamespace(lora_name="qera", lora_path=path, load_inplace=load_inplace)
        return asyncio.run(server.load_lora_adapter(request))

    def test_the_stand_in_has_the_defect(self):
        engine = worker_module().LRUCacheWorkerLoRAManager()
        for _ in range(33):
            engine._apply_adapters({Request(1, "a", True)})
        assert len(engine.reads) == 33

    def test_an_adapter_is_read_once_a_change(self):
        self.loaded.clear()
        _, engine, server = self.mended()
        assert self.load(server, "/g/1") == "Success"
        for _ in range(33):
            engine._apply_adapters({server.lora_requests["qera"], None})
        assert self.load(server, "/g/2") == "Success"
        for _ in range(33):
            engine._apply_adapters({server.lora_requests["qera"]})
        assert engine.reads == ["/g/1", "/g/2"] and self.loaded == [1, 1]
        assert server.lora_requests["qera"].load_inplace is False

    def test_the_same_path_again_is_read_again(self):
        _, engine, server = self.mended()
        self.load(server, "/g/1")
        self.load(server, "/g/1")
        assert engine.reads == ["/g/1"] * 2

    def test_a_step_never_loads_in_place(self):
        """Also where the API server's process has no plugin."""
        _, engine, _ = self.mended()
        engine.add_adapter(Request(1, "/g/1", True))
        kept = Request(1, "/g/1", True)
        for _ in range(5):
            engine._apply_adapters({kept})
        assert engine.reads == ["/g/1"] and kept.load_inplace, "the scheduler's own request is as it was"

    def test_an_evicted_adapter_is_read_from_its_newest_folder(self):
        _, engine, server = self.mended()
        self.load(server, "/g/1")
        old = server.lora_requests["qera"]
        self.load(server, "/g/2")
        engine.add_adapter(Request(2, "/canary"))  # evicts the first
        engine._apply_adapters({old})  # a request in flight
        assert engine.reads == ["/g/1", "/g/2", "/canary", "/g/2"] and old.lora_path == "/g/1"

    def test_loads_that_are_not_in_place_are_as_ever(self):
        self.loaded.clear()
        _, engine, server = self.mended()
        self.load(server, "/g/1", load_inplace=False)
        engine._apply_adapters({server.lora_requests["qera"]})
        assert engine.reads == ["/g/1"] and self.loaded == []
        assert self.load(server, "refused") == "error"

    def test_the_sign(self):
        switch, _, server = self.mended()
        assert asyncio.run(server.show_available_models()).qera == {"plugin": VERSION, "swaps_in_place": True}
        switch.off("it fails")
        assert not hasattr(asyncio.run(server.show_available_models()), "qera")

    def test_a_server_with_other_functions_is_left_alone(self):
        module = serving_module(None)
        module.OpenAIServingModels.load_lora_adapter = lambda self, request: None
        before = dict(vars(module.OpenAIServingModels))
        mend_server(module, Switch())
        assert dict(vars(module.OpenAIServingModels)) == before
