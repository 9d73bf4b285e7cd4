"""The tap: calls that fail, call themselves, or are spread over threads; copies of the model; what
it is asked for."""

import contextlib
import copy
import io
import os
import pickle
import threading
from unittest import mock

import hugging_face
import torch
import transformers
from architectures import ARCHITECTURES
from folders import Folders
from hugging_face import Frame, ShardFolder, Tap
from test_tap_rows import SMALL, drawn, llama, replica
from torch import nn
from truth import recorded, shards


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x, error=None):
        y = self.a(x)
        if error is not None:
            raise error
        return self.b(y)


class Chunked(Two):
    """Calls itself with parts of a long input."""

    def forward(self, x):
        return torch.cat([self(part) for part in x.split(4)]) if len(x) > 4 else super().forward(x)


class Data(Two):
    def forward(self, x):
        y = self.a(x)
        x.data.mul_(2)
        return y + self.b(x)


class Threaded(Two):
    def forward(self, x):
        thread = threading.Thread(target=super().forward, args=(x,))
        thread.start(), thread.join()
        return x


class Own(nn.Module):
    """Has modules that are called as PEFT calls its own."""

    def __init__(self):
        super().__init__()
        self.base_layer, self.original_module, self.head = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x):
        return self.head(self.original_module(self.base_layer(x)))


class Spread(nn.DataParallel):
    def forward(self, x):
        work = [(replica(self.module), part) for part in x.chunk(2)]
        threads = [threading.Thread(target=one, args=(part,)) for one, part in work]
        [thread.start() for thread in threads], [thread.join() for thread in threads]
        return x


class TapCallsTests(Folders):
    def __init__(self, daemon):
        super().__init__(daemon, "tap-calls")

    def record(self, model, use, **options):
        folder, told = self.folder(), io.StringIO()
        with torch.no_grad(), contextlib.redirect_stderr(told), Tap(model, folder, **options) as tap:
            use(model)
        return {name: len(rows) for name, rows in recorded(folder).items()}, told.getvalue(), tap

    def fail(self, model, error):
        with contextlib.suppress(ValueError, KeyboardInterrupt):
            model(torch.randn(3, 8), error)

    def test_failed_calls_leave_nothing(self):
        """Neither at the end, nor with what is called after that: another part of the model, or it
        again."""
        for error in (ValueError("x"), KeyboardInterrupt()):
            rows, _, tap = self.record(Two(), lambda m: self.fail(m, error))
            assert rows == {} and tap.shards == 0, rows
            rows, _, _ = self.record(Two(), lambda m: [self.fail(m, error), m(torch.randn(2, 8))])
            assert rows == {"a": 2, "b": 2}, rows
            rows, _, _ = self.record(Two(), lambda m: [self.fail(m, error), m.b(torch.randn(5, 8))])
            assert rows == {"b": 5}, rows

    def test_a_second_try_within_the_handling_of_the_first(self):
        def use(m):
            try:
                m(torch.randn(4, 8), ValueError("out of memory"))
            except ValueError:
                [m(x) for x in torch.randn(4, 8).split(2)]

        rows, _, tap = self.record(Two(), use)
        assert rows == {"a": 4, "b": 4} and tap.shards == 2, rows

    def test_a_failed_call_does_not_eat_a_part_of_the_model(self):
        """T5 without decoder_input_ids fails after its encoder; generate calls the encoder
        alone."""
        model, options = ARCHITECTURES["t5"].make(), dict(max_new_tokens=3, min_new_tokens=3)

        def use(m):
            with contextlib.suppress(ValueError):
                m(input_ids=drawn())
            m.generate(drawn(seed=4), **options)

        rows, _, _ = self.record(model, use)
        alone, _, _ = self.record(model, lambda m: m.generate(drawn(seed=4), **options))
        assert rows == alone, (rows, alone)

    def test_a_fault_of_the_tap_costs_the_whole_call(self):
        """A mask may be lost with it, of an inner module, too; the next call is recorded."""
        look, mask = Frame.look, torch.ones(2, 32, dtype=torch.long)
        mask[0, 20:] = 0
        for depth in (0, 1, 3):

            def failing(frame, name, names, given, around):
                if len(around) == depth and not faults:
                    faults.append(name)
                    raise RuntimeError("no such mask")
                look(frame, name, names, given, around)

            faults, Frame.look, model = [], failing, llama()
            try:
                use = lambda m: [m(drawn(), attention_mask=mask), m(drawn(seed=4))]
                rows, told, tap = self.record(model, use)
            finally:
                Frame.look = look
            assert faults and tap.shards == 1 and set(rows.values()) == {64}, rows
            assert told.count("no such mask") == 1, told

    def test_each_fault_is_said_once(self):
        def use(m):
            for text in ("one", "one", "two"):
                tap._guarded(lambda: (_ for _ in ()).throw(ValueError(text)))

        told = io.StringIO()
        with contextlib.redirect_stderr(told), Tap(Two(), self.folder()) as tap:
            use(tap)
        assert told.getvalue().count("ValueError: one") == told.getvalue().count("ValueError: two") == 1

    def test_hooks_are_off_before_the_rest_is_written(self):
        folder, model, hooks = self.folder(), Two(), []
        tap = Tap(model, folder)
        model.b(torch.randn(5, 8))  # a part by itself: no call has ended
        finish = tap._finish_all
        tap._finish_all = lambda: (hooks.append(len(model.b._forward_pre_hooks)), finish())
        tap.close()
        model(torch.randn(2, 8))
        tap.close()
        assert hooks[0] == 0 and len(recorded(folder)["b"]) == 5 and tap.shards == 1, hooks

    def test_a_rank_that_is_no_number(self):
        for text, number in (("", 0), ("first", 0), ("-1", 0), ("3", 3)):
            with mock.patch.dict(os.environ, RANK=text):
                assert hugging_face.rank() == number, text

    def test_a_model_that_calls_itself(self):
        rows, _, tap = self.record(Chunked(), lambda m: m(torch.randn(12, 8)))
        assert rows == {"a": 12, "b": 12} and tap.shards == 1, rows

    def test_writes_that_torch_does_not_count(self):
        folder = self.folder()
        with torch.no_grad(), Tap(model := Data(), folder):
            model(torch.ones(1, 8))
        found = recorded(folder)
        assert found["a"].eq(1).all() and found["b"].eq(2).all(), found

    def test_layers_in_a_thread_that_the_model_starts(self):
        rows, told, tap = self.record(Threaded(), lambda m: [m(torch.randn(4, 8)) for _ in range(3)])
        assert not rows and tap.left_out.keys() == {"a", "b"} and told.count("thread of its own") == 1, told

    def test_parts_in_threads_that_ended(self):
        def use(m):
            for _ in range(3):
                thread = threading.Thread(target=m.a, args=(torch.randn(2, 8),))
                thread.start(), thread.join()

        rows, told, _ = self.record(Two(), use)
        assert rows == {"a": 6}, (rows, told)

    def test_one_call_of_several_where_it_is_spread(self):
        for every in (1, 2, 3):
            use = lambda m: [m(torch.randn(4, 8)) for _ in range(12)]
            rows, _, tap = self.record(Spread(Two()), use, every=every)
            assert set(rows.values()) == {48 // every} and tap.calls == 12, (every, rows)

    def test_one_call_of_several_where_calls_have_a_rhythm(self):
        """T5's encoder is every fifth call, and the decoder the others."""
        model, options = ARCHITECTURES["t5"].make(), dict(max_new_tokens=4, min_new_tokens=4)
        rows, _, _ = self.record(model, lambda m: [m.generate(drawn()[:1, :4], **options) for _ in range(20)], every=5)
        fed = {name.split(".")[0] for name in rows}
        assert fed >= {"encoder", "decoder"}, fed

    def test_rows_are_tokens_and_not_calls_of_a_layer(self):
        sizes = SMALL | dict(embedding_size=16, num_hidden_layers=12, max_position_embeddings=64)
        model = transformers.AlbertModel(transformers.AlbertConfig(**sizes)).eval()
        _, _, tap = self.record(model, lambda m: [m(drawn()[:1, :20]) for _ in range(8)], max_rows=100)
        assert tap.shards == 5 and tap.rows == 100, tap.rows

    def test_copies_while_it_is_on(self):
        """pickle and deepcopy take the model without the tap."""
        model, x, copies = Two(), torch.randn(3, 8), []

        def use(m):
            torch.save(m, file := io.BytesIO())
            file.seek(0)
            copies.extend([copy.deepcopy(m), pickle.loads(pickle.dumps(m)), torch.load(file)])
            assert all(torch.equal(one(x), m(x)) for one in copies)

        rows, _, _ = self.record(model, use)
        assert rows == {"a": 9, "b": 9}, rows
        for one in copies:
            hooks = [hook for part in one.modules() for hook in part._forward_pre_hooks.values()]
            assert torch.equal(one(x), model(x)) and not any(isinstance(hook, hugging_face.Hook) for hook in hooks)

    def test_names_of_peft_in_other_models(self):
        rows, _, _ = self.record(Own(), lambda m: m(torch.randn(3, 8)))
        assert rows == dict.fromkeys(("base_layer", "original_module", "head"), 3), rows

    def test_layers_that_never_got_a_row_are_said(self):
        encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2).eval()
        _, told, _ = self.record(encoder, lambda m: m(torch.randn(2, 5, 16)))  # torch 1 computes it without its layers
        assert "of 6 layers got no row: layers.*.self_attn.out_proj" in told, told
        _, told, _ = self.record(llama(pretraining_tp=2), lambda m: m(drawn()))
        assert "got no row" in told and told.count("\n") == 1, told

    def refused(self, word, *given, **options):
        try:
            Tap(*given, self.folder(), **options)
        except ValueError as error:
            assert word in str(error), error
        else:
            raise AssertionError(f"taken: {options}")

    def test_options_are_checked(self):
        for name in ("every", "max_rows", "max_bytes"):
            for value in (0, -1, 1.5, "1GB", True):
                self.refused(f"{name} {value!r}", Two(), **{name: value})
        self.refused("dtype 'float16'", Two(), dtype="float16")
        self.refused("source 'int8'", Two(), source="int8")
        self.refused("include [3]", Two(), include=[3])
        self.refused("matches none of the layers: a, b", Two(), include="layers.*")

    def test_names_that_a_shard_cannot_have(self):
        self.refused("without a name", nn.Linear(8, 8))

        class Odd(Two):
            def __init__(self):
                super().__init__()
                self.add_module("__metadata__", nn.Linear(8, 8))

        rows, told, _ = self.record(Odd(), lambda m: [m(torch.randn(3, 8)), m._modules["__metadata__"](torch.ones(8))])
        assert rows == {"a": 3, "b": 3} and told.count("__metadata__ is left out") == 1, told

    def test_one_large_shard_does_not_stop_the_small_ones(self):
        use = lambda m: [m(torch.randn(rows, 8)) for rows in (1000, 3, 3, 3)]
        rows, _, tap = self.record(Two(), use, max_bytes=20000)
        assert rows == {"a": 9, "b": 9} and tap.dropped_shards == 1, rows

    def test_the_folder_is_not_listed_at_every_call(self):
        folder, looks = ShardFolder(self.folder(), 1000, 0), []
        folder.bytes_that_wait = lambda: looks.append(1) or 400
        assert all(folder.has_room(500) for _ in range(100)) and len(looks) == 1, looks
        folder.waiting, folder.took = 900, 0.0
        assert folder.has_room(500) and len(looks) == 2, "what seems full is looked at again"

    def test_what_cannot_be_locked_or_read(self):
        """A file system without locks, Windows; a leftover that is no file."""
        known, folder = hugging_face.fcntl, self.folder()
        (folder / ".tap-1-0-1-000001.part").mkdir()
        hugging_face.fcntl = None
        try:
            with Tap(model := Two(), folder):
                model(torch.randn(3, 8))
        finally:
            hugging_face.fcntl = known
        assert len(shards(folder)) == 1
        Tap(Two(), folder).close()

    def test_flattened_weights_are_said(self):
        """FSDP without use_orig_params has no weight in a layer."""

        class FullyShardedDataParallel(nn.Module):
            def __init__(self, module):
                super().__init__()
                self._fsdp_wrapped_module = module
                for layer in (module.a, module.b):
                    weight = layer.weight
                    del layer.weight
                    layer.weight = weight.detach()

        self.refused("use_orig_params=True", FullyShardedDataParallel(Two()))
