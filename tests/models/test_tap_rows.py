"""The tap: every row that a layer was given is in the shards, once, bit for bit."""

import contextlib
import copy
import io
import threading

import torch
import transformers
from architectures import ARCHITECTURES, tokens
from folders import Folders
from hugging_face import Tap
from record import is_linear
from safetensors import safe_open
from torch.utils.checkpoint import checkpoint
from truth import Truth, check_same, recorded, shards

SMALL = dict(vocab_size=160, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48)


def drawn(sequences=2, seed=3):
    return tokens(sequences, torch.Generator().manual_seed(seed))


def albert():
    sizes = SMALL | dict(embedding_size=16, num_hidden_layers=4, max_position_embeddings=64)
    return transformers.AlbertModel(transformers.AlbertConfig(**sizes)).eval()


def llama(**sizes):
    config = transformers.LlamaConfig(**SMALL | dict(max_position_embeddings=64, tie_word_embeddings=True) | sizes)
    return transformers.LlamaForCausalLM(config).eval()


def fed(model):
    """All that is recorded of a model whose head is tied."""
    return {name for name, module in model.named_modules() if is_linear(module) and name != "lm_head"}


class Spread(torch.nn.Module):
    """Layers over images, [batch, height, width, features], and over one vector."""

    def __init__(self):
        super().__init__()
        self.over, self.one = torch.nn.Linear(8, 4), torch.nn.Linear(4, 2)

    def forward(self, x):
        return self.one(self.over(x).mean((0, 1, 2)))


class Choosy(torch.nn.Linear):
    """A linear layer whose input is no tensor."""

    def forward(self, given):
        return super().forward(given["x"])


class Mixed(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.plain, self.choosy = torch.nn.Linear(8, 8), Choosy(8, 8)

    def forward(self, x):
        return self.choosy({"x": self.plain(x)})


class InPlace(torch.nn.Module):
    """One tensor that is written into between two layers, and by whom it is read after that."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (torch.nn.Linear(8, 8) for _ in range(3))

    def forward(self, x):
        x = x.clone()
        a = self.first(x) + self.second(x)
        x += a
        return self.third(x).mul_(2.0)


class Looped(torch.nn.Module):
    """Checkpointed blocks of torch alone: no module takes a mask."""

    def __init__(self, reentrant):
        super().__init__()
        self.block, self.reentrant = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh()), reentrant

    def forward(self, x):
        for _ in range(3):
            x = checkpoint(self.block, x, use_reentrant=self.reentrant)
        return x


def replica(module):
    """What DataParallel makes of a module for another device, its parameters shared."""
    copied = module._replicate_for_data_parallel()
    for name, child in module._modules.items():
        copied._modules[name] = child and replica(child)
    for name, parameter in module._parameters.items():
        copied._parameters[name] = parameter
    return copied


class TapRowsTests(Folders):
    def __init__(self, daemon):
        super().__init__(daemon, "tap-rows")

    def check(self, model, use, names=None, grad=False, **options):
        """Records what `use` does with the model, twice: by the tap and by the truth. Returns the
        folder."""
        folder = self.folder()
        with torch.set_grad_enabled(grad), Tap(model, folder, **options):
            truth = Truth(model, is_linear)
            use(model)
            truth.stop()
        check_same(folder, truth, names=names)
        return folder

    def test_every_call_of_a_module_counts(self):
        """ALBERT has one block and calls it four times."""
        folder = self.check(albert(), lambda m: m(drawn()))
        rows = recorded(folder)["encoder.albert_layer_groups.0.albert_layers.0.ffn"]
        assert rows.shape[0] == 4 * drawn().numel(), rows.shape

    def test_decoding_with_a_cache(self):
        options = dict(max_new_tokens=7, min_new_tokens=7, do_sample=False)
        for beams in (1, 3):
            model, more = llama(), dict(num_beams=beams)
            self.check(model, lambda m: m.generate(drawn()[:, :9], **options, **more), fed(model))

    def test_generation_of_an_encoder_decoder(self):
        """The encoder is called by itself, and its keys and values are computed once."""
        model = ARCHITECTURES["t5"].make()
        options = dict(max_new_tokens=5, min_new_tokens=5, do_sample=False)
        self.check(model, lambda m: m.generate(drawn(), **options), fed(model))

    def test_training_with_dropout(self):
        sizes = dict(n_embd=16, n_layer=2, n_head=2, n_positions=64, vocab_size=160)
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)).train()
        self.check(model, lambda m: m(drawn(), labels=drawn()).loss.backward(), fed(model), grad=True)

    def test_recomputed_calls_are_not_counted_twice(self):
        for reentrant in (True, False):
            for make in (llama, lambda r=reentrant: Looped(r)):
                model = make().train()
                names, x = fed(model), drawn()
                if isinstance(model, Looped):
                    x = torch.randn(2, 5, 8, requires_grad=True)
                else:
                    model.gradient_checkpointing_enable(dict(use_reentrant=reentrant))
                    model.enable_input_require_grads()
                folder = self.folder()
                with Tap(model, folder):
                    truth = Truth(model, is_linear)
                    result = model(x)
                    truth.stop()
                    (result if torch.is_tensor(result) else result.logits).sum().backward()
                    model(x)  # and what comes after is recorded again
                truth.calls = {name: calls * 2 for name, calls in truth.calls.items()}
                check_same(folder, truth, names=names)

    def test_types_are_kept(self):
        for dtype in (torch.float32, torch.bfloat16):
            model = llama().to(dtype)
            folder = self.check(model, lambda m: m(drawn()), fed(model))
            assert {x.dtype for x in recorded(folder).values()} == {dtype}
        folder, model = self.folder(), torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(8, 8))
        model[1].forward = lambda x: x  # a CPU multiplies no f16
        with Tap(model, folder):
            x = torch.randn(3, 8).half()
            model(x)
        assert torch.equal(recorded(folder)["1"], x)

    def test_autocast(self):
        """Norms hand on f32, products bf16: each as it came."""
        model = llama()

        def use(m):
            with torch.autocast("cpu", torch.bfloat16):
                m(drawn())

        folder = self.check(model, use, fed(model))
        assert {x.dtype for x in recorded(folder).values()} == {torch.float32, torch.bfloat16}

    def test_dtype_of_stored_rows(self):
        folder, model = self.folder(), torch.nn.Sequential(torch.nn.Linear(8, 8))
        with Tap(model, folder, dtype="bf16"):
            x = torch.randn(3, 8)
            model(x)
        assert torch.equal(recorded(folder)["0"], x.bfloat16())

    def test_images_and_single_vectors(self):
        folder = self.check(Spread(), lambda m: [m(torch.randn(2, 3, 5, 8)), m(torch.randn(1, 4, 4, 8))])
        assert recorded(folder)["over"].shape == (46, 8) and recorded(folder)["one"].shape == (2, 4)

    def test_images_of_a_real_class(self):
        config = transformers.ConvNextConfig(num_stages=2, hidden_sizes=[8, 16], depths=[1, 2])
        self.check(transformers.ConvNextModel(config).eval(), lambda m: m(torch.randn(2, 3, 32, 32)))

    def test_empty_batches_are_skipped(self):
        """Experts that no token chose."""
        model = ARCHITECTURES["mixtral"].make()
        self.check(model, lambda m: m(drawn()[:1, :3]), self.chosen(model))

    def chosen(self, model):
        """The layers that are given a row."""
        sizes, handles = {}, []
        for name, module in model.named_modules():
            if is_linear(module):
                keep = lambda _, x, name=name: sizes.update({name: sizes.get(name, 0) + x[0].numel()})
                handles.append(module.register_forward_pre_hook(keep))
        with torch.no_grad():
            model(drawn()[:1, :3])
        [handle.remove() for handle in handles]
        assert 0 in sizes.values(), "every expert has rows"
        return {name for name, size in sizes.items() if size}

    def test_an_odd_input_costs_its_layer_alone(self):
        folder, model, told = self.folder(), Mixed(), io.StringIO()
        x = torch.randn(2, 3, 8)
        with contextlib.redirect_stderr(told), Tap(model, folder) as tap:
            results = [model(x), model(x)]
        assert torch.equal(results[0], model(x)) and len(shards(folder)) == 2
        assert recorded(folder).keys() == {"plain"} and "dict" in tap.left_out["choosy"]
        assert told.getvalue().count("choosy is left out") == 1, told.getvalue()

    def test_values_that_are_not_finite_cost_their_layer_alone(self):
        folder, linear = self.folder(), torch.nn.Linear
        model = torch.nn.Sequential(linear(8, 8), torch.nn.ReLU(), linear(8, 8))
        model[0].bias.data[3] = float("inf")
        with contextlib.redirect_stderr(io.StringIO()) as told, Tap(model, folder) as tap:
            model(torch.randn(4, 8))
        assert recorded(folder).keys() == {"0"} and tap.left_out.keys() == {"2"}, tap.left_out
        assert told.getvalue().count("its input has NaN or infinite values") == 1, told.getvalue()

    def test_what_is_written_into_a_tensor_later_changes_nothing(self):
        self.check(InPlace(), lambda m: m(torch.randn(2, 3, 8)))

        def without_versions(m):
            with torch.inference_mode():
                m(torch.randn(2, 3, 8))

        self.check(InPlace(), without_versions)

    def test_inputs_are_shared_in_inference_mode(self):
        folder, model = self.folder(), llama()
        with torch.inference_mode(), Tap(model, folder):
            model(drawn())
        (shard,) = shards(folder)
        with safe_open(shard, "pt") as file:
            assert len(list(file.keys())) == 4 * 3
        assert recorded(folder).keys() == fed(model)

    def test_a_call_that_fails_leaves_no_trace(self):
        folder, model = self.folder(), llama()

        def fail(*_):
            raise KeyboardInterrupt

        with torch.no_grad(), Tap(model, folder):
            broken = model.model.layers[1].mlp.act_fn.register_forward_pre_hook(fail)
            with contextlib.suppress(KeyboardInterrupt):
                model(drawn(seed=1))
            broken.remove()
            truth = Truth(model, is_linear)
            model(drawn(seed=2))
            truth.stop()
        check_same(folder, truth, names=fed(model))

    def test_parts_that_are_called_by_themselves(self):
        model = llama()
        x = torch.randn(2, 5, 32)
        self.check(model, lambda m: [m.model.layers[0].mlp(x), m.model.layers[0].mlp(x + 1), m.model(drawn())])

    def test_replicas_of_data_parallel(self):
        """Each works in a thread of its own, on a part of the batch, all at once."""
        folder, model, given = self.folder(), llama(), drawn(6).split(2)
        truth = Truth(model, is_linear)
        with torch.no_grad():
            for part in given:
                model(part)
        truth.stop()
        meet = threading.Barrier(len(given), timeout=30)

        def all_meet(*_):
            meet.wait()

        def work(one, part):
            with torch.no_grad():
                one(input_ids=part)

        model.model.embed_tokens.register_forward_pre_hook(all_meet)
        with Tap(torch.nn.DataParallel(model), folder):
            threads = [threading.Thread(target=work, args=(replica(model), part)) for part in given]
            [thread.start() for thread in threads], [thread.join() for thread in threads]
        assert len(shards(folder)) == len(given)
        check_same(folder, truth, names=fed(model))

    def test_a_copy_of_the_model_is_not_recorded(self):
        folder, model = self.folder(), llama()
        with torch.no_grad(), Tap(model, folder):
            copy.deepcopy(model)(drawn())
        assert not shards(folder)

    def test_the_model_is_left_as_it_was(self):
        folder, model = self.folder(), llama()
        with torch.no_grad():
            expected = model(drawn()).logits
            with Tap(model, folder):
                assert torch.equal(model(drawn()).logits, expected)
            model(drawn())
        assert len(shards(folder)) == 1
        assert not any(m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in model.modules())
