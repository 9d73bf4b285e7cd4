"""Whatever goes wrong inside, the server computes what it computes without the tap, and it is said
once."""

import contextlib
import io
import json

import torch
from qera_vllm import tap as parts
from qera_vllm.lora_swap import Swaps
from qera_vllm.runners import obstacle
from qera_vllm.settings import Settings, from_environment
from qera_vllm.switch import Switch
from served import SECONDS, Served
from stand_ins import KINDS, FirstRunner, Model, SecondRunner, configuration, new, schedule

STAGES = {  # part of the tap -> its functions that the engine's thread or the writer's runs
    "recorder": ("scheduled", "begin", "_listen", "_placed", "_read", "_problem", "end", "_keep", "_hand_over", "_end")
    + ("done",),
    "requests": ("new", "finished", "resumed", "segments"),
    "blocks": ("take", "give"),
    "writer": ("block", "finish", "is_full", "_take", "_finish", "_write", "about"),
    "gathering": ("take", "pop", "tensors", "largest"),
    "folder": ("put",),
}


class Fault(Exception):
    pass


def fail(*_):
    raise Fault("injected")


class FaultTests:
    def __init__(self, work):
        self.work, self.number = work, 0
        work.mkdir()

    def part(self, served, name):
        recorder = served.recorder
        writer = recorder.writer
        return {
            "recorder": recorder,
            "requests": recorder.requests,
            "blocks": recorder.blocks,
            "writer": writer,
            "gathering": writer.gathering,
            "folder": writer.folder,
        }[name]

    def test_a_fault_at_each_stage(self):
        first = ({"a": 600, "b": 9}, [new("a"), new("b")], [])
        steps = (first, ({"a": 1, "b": 1}, [], []), ({"c": 50}, [new("c")], ["a"]))
        for runner in (FirstRunner, SecondRunner):
            plain = runner(Model())
            wants = [plain.execute_model(schedule(tokens, news, ended)) for tokens, news, ended in steps]
            for part, functions in STAGES.items():
                for function in functions:
                    self.number += 1
                    served = Served(self.work / str(self.number), runner)
                    assert hasattr(self.part(served, part), function)
                    setattr(self.part(served, part), function, fail)
                    for (tokens, news, ended), want in zip(steps, wants):
                        got = served.step(tokens, *news, finished=ended)
                        assert torch.equal(got, want), (runner, part, function)
                    served.end("b", "c")
                    served.recorder.writer.thread.join(0.2 if served.switch.on else 5)
                    said = served.said.getvalue()
                    assert not served.switch.on, f"{runner.__name__}: {part}.{function} goes on; {said}"
                    assert not any(m._forward_pre_hooks for m in served.model.modules()), (part, function)
                    assert said.count("off: Fault: injected") + self.late(served) >= 1, (part, function, said)
                    assert said.count("off:") <= 1, said

    @staticmethod
    def late(served):
        """What the writer's thread says goes to the standard error of then."""
        return "off" in served.switch.said

    def test_the_tap_goes_off_while_a_step_begins(self):
        served = Served(self.work / "begins")
        last = served.recorder.sites[-1].module
        register = last.register_forward_pre_hook

        def then_off(hook):
            handle = register(hook)
            served.switch.off("the writer's thread fails just now")
            return handle

        last.register_forward_pre_hook = then_off
        served.step({"a": 40}, new("a"))
        assert not served.switch.on and served.recorder.step is None
        assert not any(module._forward_pre_hooks for module in served.model.modules())

    def test_what_waits_is_freed_when_the_tap_goes_off(self):
        for number, where in enumerate(("begin", "put")):
            served = Served(self.work / f"freed-{number}")
            writer = served.recorder.writer
            served.step({"a": 900, "b": 100}, new("a"), new("b"))
            served.settle()
            assert writer.gathering.by_request and writer.thread.is_alive()
            if where == "begin":  # the engine's thread fails, while the writer's waits for work
                served.recorder.begin = fail
                served.step({"a": 1})
            else:
                writer.folder.put = fail
                served.step({}, finished=["a"])
            writer.thread.join(SECONDS)
            assert not served.switch.on and not writer.thread.is_alive(), where
            assert not writer.gathering.by_request and writer.queue.empty(), where
            assert served.recorder.blocks.free == [] and served.recorder.current is None, where

    def test_a_site_that_is_left_out_while_a_shard_is_made(self):
        served = Served(self.work / "while")
        served.step({"a": 40}, new("a"))
        writer = served.recorder.writer
        tensors, last = writer.gathering.tensors, served.recorder.sites[-1]

        def then_left_out(*arguments):
            made = tensors(*arguments)
            last.left_out = True  # the engine's thread finds so just now
            return made

        writer.gathering.tensors = then_left_out
        served.end("a")
        shard = served.only_shard()
        shared = {name for names in json.loads(shard.metadata["qera.shares"]) for name in names}
        assert last.key in shard.tensors and set(last.names) <= shared, (last.key, shared)

    def test_a_fault_while_it_is_put_together(self):
        switch, runner = Switch(), FirstRunner(Model())
        file = self.work / "file"
        file.write_text("")
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            found = parts.find(runner.model, KINDS)
            switch.guarded(parts.assemble, runner, Settings(str(file)), switch, Swaps(), found)
        assert not switch.on and "FileExistsError" in said.getvalue(), said.getvalue()
        runner.execute_model(schedule({"a": 40}, [new("a")]))

    def test_a_runner_of_another_kind(self):
        switch, said = Switch(), io.StringIO()
        runner = type("Other", (), {"vllm_config": configuration(), "get_model": None})()
        with contextlib.redirect_stderr(said):
            model = Model()
            found = parts.find(model, KINDS)
            made = parts.assemble(runner, Settings(str(self.work / "other")), switch, Swaps(), found)
        assert made is None and not switch.on and "the model runner Other has other functions" in said.getvalue()
        assert not any(module._forward_pre_hooks for module in model.modules())

    def test_rows_that_do_not_add_up(self):
        served = Served(self.work / "sum")
        batch = served.runner.batch

        def wrong(output):
            made = batch(output)
            made.req_ids = made.req_ids[:1]
            return made

        served.runner.batch = wrong
        served.step({"a": 40, "b": 41}, new("a"), new("b"))
        assert not served.switch.on and "other rows than the 81" in served.said.getvalue()

    def test_standard_error_that_is_closed(self):
        closed = io.StringIO()
        closed.close()
        with contextlib.redirect_stderr(closed):
            Switch().off("nobody listens")

    def test_what_cannot_be_recorded_is_said(self):
        assert obstacle(configuration()) is None
        named = type("Mode", (), {"name": "VLLM_COMPILE"})
        full = type("Mode", (), {"name": "FULL"})
        for change, words in (
            ({"compilation_config__mode": named}, "--enforce-eager"),
            ({"compilation_config__cudagraph_mode": full}, "--enforce-eager"),
            ({"speculative_config": object()}, "speculative"),
            ({"parallel_config__pipeline_parallel_size": 2}, "pipeline"),
            ({"parallel_config__prefill_context_parallel_size": 2}, "context parallelism"),
            ({"parallel_config__use_ubatching": True}, "ubatching"),
            ({"cache_config__kv_sharing_fast_prefill": True}, "fast_prefill"),
        ):
            assert words in obstacle(configuration(**change)), change

    def test_the_environment(self):
        assert from_environment({}) is None and from_environment({"QERA_TAP": ""}) is None
        assert from_environment({"QERA_TAP": "a"}) == Settings("a")
        given = {"QERA_TAP": "a", "QERA_TAP_MAX_BYTES": "3M", "QERA_TAP_EVERY": "16", "QERA_TAP_ROWS": "99"}
        assert from_environment(given | {"QERA_TAP_WHICH": "base"}) == Settings("a", 3 * 2**20, 16, 99, "base")
        binary = dict.fromkeys(("8G", "8g", "8GiB", "8gib"), 8 * 2**30)
        for text, size in (binary | {"8GB": 8 * 10**9, "7": 7, "9B": 9}).items():
            assert from_environment({"QERA_TAP": "a", "QERA_TAP_MAX_BYTES": text}).max_bytes == size, text
        for name, value in (
            ("QERA_TAP_MAX_BYTES", "lots"),
            ("QERA_TAP_MAX_BYTES", "8iB"),
            ("QERA_TAP_MAX_BYTES", "\u0668G"),
            ("QERA_TAP_MAX_BYTES", "8\u212a"),  # upper() and re take the Kelvin sign for a K
            ("QERA_TAP_EVERY", "\u0661\u0666"),
            ("QERA_TAP_MAX_BYTES", "0"),
            ("QERA_TAP_EVERY", "0"),
            ("QERA_TAP_EVERY", "1.5"),
            ("QERA_TAP_ROWS", "-1"),
            ("QERA_TAP_WHICH", "mine"),
        ):
            try:
                from_environment({"QERA_TAP": "a", name: value})
                raise AssertionError(f"{name}={value} is taken")
            except ValueError as error:
                assert name in str(error) and value in str(error), error

