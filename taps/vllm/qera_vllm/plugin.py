"""The entry point. vLLM calls it in every process of a server, unguarded."""

import os

from . import VERSION
from .imports import Imports
from .lora_swap import Swaps, mend_server, mend_worker
from .runners import RUNNERS, after_load
from .settings import from_environment
from .switch import Switch

TESTED = ("0.32.0",)  # vLLM's

imports, swaps = Imports(), Swaps()
registered = False


def version():
    """vLLM's, without what a build adds to it."""
    from vllm.version import __version__

    return __version__.split("+")[0]


def register():
    """What the entry point names. It raises nothing: that would end the server."""
    global registered
    if registered:
        return
    registered = True
    mending = Switch()
    mending.guarded(mend, mending)
    if os.environ.get("QERA_TAP"):
        tap = Switch()
        tap.guarded(wait_for_runners, tap)


def mend(switch):
    if version() not in TESTED:
        return
    imports.after(
        "vllm.entrypoints.openai.models.serving", lambda module: switch.guarded(mend_server, module, switch)
    )
    imports.after("vllm.lora.worker_manager", lambda module: switch.guarded(mend_worker, module, switch, swaps))


def wait_for_runners(switch):
    def loaded(runner):
        switch.guarded(start, runner, switch)

    for module, kind in RUNNERS.items():
        imports.after(
            module, lambda module, kind=kind: switch.guarded(lambda: after_load(getattr(module, kind), loaded))
        )
    imports.after("vllm.v1.worker.worker_base", lambda module: switch.guarded(watch, module, switch))


def watch(module, switch):
    """Says so where a worker runs that has a runner of another kind."""
    kind = module.WorkerWrapperBase
    execute = kind.execute_model

    def execute_model(self, *arguments, **options):
        kind.execute_model = execute  # one look is enough
        if "model" not in switch.said:
            switch.off("the worker has a model runner that it does not know")
        return execute(self, *arguments, **options)

    kind.execute_model = execute_model


def start(runner, switch):
    """The runner has loaded its model."""
    from .tap import start_tap

    switch.said.add("model")
    found = version()
    if found not in TESTED:
        switch.off(f"vLLM {found} is none of the versions that it was tested with ({', '.join(TESTED)})")
        return
    start_tap(runner, from_environment(os.environ), switch, swaps)


__all__ = ["VERSION", "register"]
