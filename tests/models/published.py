"""A run of the daemon on a recorded model, and what it published, loaded as its README says."""

import contextlib
import re

import mxint
import peft.peft_model
import torch
from daemon import PREFIX
from peft.tuners.lora import LoraLayer
from record import Recorder, is_linear
from safetensors.torch import load_file

BITS, RANK, BLOCK_SIZE = 3, 8, 32
OPTIONS = ("--quantizer", f"mxint{BITS}", "--block-size", BLOCK_SIZE, "--rank", RANK, "--emit-base")


def tensors(folder):
    """All that a checkpoint holds, as it is stored."""
    return {
        name: tensor
        for path in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def same_bits(a, b):
    as_integers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and torch.equal(a.view(as_integers), b.view(as_integers))
    )


def changed(checkpoint, base):
    """Names of the tensors that are not the same bits in both."""
    before, after = tensors(checkpoint), tensors(base)
    assert before.keys() == after.keys(), (
        f"the base has other tensors: {before.keys() ^ after.keys()}"
    )
    return {name for name, tensor in before.items() if not same_bits(tensor, after[name])}


def check_changed(checkpoint, base, names):
    """The weights of these modules are quantized, and nothing else is touched."""
    found, expected = changed(checkpoint, base), {f"{name}.weight" for name in names}
    assert found == expected, f"not in both: {sorted(found ^ expected)}"


def expected_linears(model):
    """Every linear layer but the head."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    return {
        name for name, module in model.named_modules() if is_linear(module) and module is not head
    }


def by_columns(module, weight):
    """[in, out] in f64, whichever way the class stores it."""
    weight = weight.detach().double()
    return weight.T if isinstance(module, torch.nn.Linear) else weight


def as_defined(module, weight):
    """W~ of a weight in the class's own layout: blocks run along in_features."""
    quantized = torch.from_numpy(
        mxint.quantize(by_columns(module, weight).T.numpy(), BITS, BLOCK_SIZE)
    )
    return quantized if isinstance(module, torch.nn.Linear) else quantized.T


@contextlib.contextmanager
def results_of_loading():
    """What PEFT's own loader returns, which `from_pretrained` keeps for itself."""
    results, module = [], peft.peft_model
    original = module.set_peft_model_state_dict

    def kept(*arguments, **options):
        results.append(original(*arguments, **options))
        return results[-1]

    module.set_peft_model_state_dict = kept
    try:
        yield results
    finally:
        module.set_peft_model_state_dict = original


class Loaded:
    """A PEFT model, and which keys its loader missed or did not expect."""

    def __init__(self, load):
        with results_of_loading() as results:
            self.model = load().eval()
        (result,) = results
        self.missing = [key for key in result.missing_keys if "lora_" in key]
        self.unexpected = list(result.unexpected_keys)

    def layers(self):
        """PEFT's own modules by the name that the layer has in the class."""
        named = self.model.named_modules()
        return {
            name.removeprefix(PREFIX): module
            for name, module in named
            if isinstance(module, LoraLayer)
        }

    def check_keys(self):
        assert not self.missing, f"the adapter lacks {self.missing}"
        assert not self.unexpected, f"PEFT does not expect {self.unexpected}"


def readme_block(out):
    """The python block of the generation's README."""
    text = (out / "current/README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 1, f"{len(blocks)} python blocks in\n{text}"
    return blocks[0]


def load_by_readme(out):
    def run():
        namespace = {}
        exec(compile(readme_block(out), "README.md", "exec"), namespace)
        return namespace["model"]

    return Loaded(run)


def load_on(model, out):
    """On a model of the caller's."""
    return Loaded(lambda: peft.PeftModel.from_pretrained(model, out / "current"))


def output(model, batch):
    """Logits, or the last hidden state of a class that has none."""
    with torch.no_grad():
        result = model(**batch)
    return result.logits if "logits" in result else result.last_hidden_state


class Unseen:
    """What a full-precision model gives, and its layers read, for inputs that were not recorded."""

    def __init__(self, model, batches):
        self.model, self.batches = model, list(batches)
        self.rows, self.outputs = {}, []
        recorder = Recorder(model)
        for batch in self.batches:
            self.outputs.append(output(model, batch))
            for names, rows in recorder.take():
                for name in names:
                    self.rows.setdefault(name, []).append(rows.flatten(0, -2).double())
        recorder.stop()
        self.rows = {name: torch.cat(parts) for name, parts in self.rows.items()}

    def error(self, changed):
        """Mean squared difference of the outputs of a changed model."""
        pairs = zip(self.batches, self.outputs)
        differences = [
            (output(changed, batch) - expected).double().square().mean()
            for batch, expected in pairs
        ]
        return torch.stack(differences).mean().item()


def adapter(out):
    return load_file(out / "current/adapter_model.safetensors")


def check_output_error(unseen, loaded):
    with loaded.model.disable_adapter():
        alone = unseen.error(loaded.model)
    corrected = unseen.error(loaded.model)
    power = torch.cat(unseen.outputs).double().square().mean().item()
    assert 1e-4 * power < alone, f"quantization alone changes nothing: {alone:.3e} of {power:.3e}"
    assert corrected < alone, f"the output error rises from {alone:.4e} to {corrected:.4e}"


def check_layer_errors(unseen, loaded):
    """|x(W - W~ - C)|^2 < |x(W - W~)|^2, C being what PEFT itself would merge."""
    for name, layer in loaded.layers().items():
        original, base = unseen.model.get_submodule(name), layer.get_base_layer()
        error = by_columns(original, original.weight) - by_columns(base, base.weight)
        left = error - by_columns(base, layer.get_delta_weight("default"))
        without, corrected = ((unseen.rows[name] @ e).square().sum().item() for e in (error, left))
        assert corrected < without, f"{name}: the error rises from {without:.4e} to {corrected:.4e}"


def check_layer_outputs(unseen, loaded, factors):
    """What PEFT computes with the class is x(W~ + A B) + b, A and B as they are in the file."""
    for name, layer in loaded.layers().items():
        base, x = layer.get_base_layer(), unseen.rows[name]
        a, b = (factors[f"{PREFIX}{name}.lora_{side}.weight"].double() for side in "AB")
        weight = by_columns(base, base.weight) + (b @ a).T
        expected = x @ weight + (0.0 if base.bias is None else base.bias.double())
        with torch.no_grad():
            given = layer(x.float()).double()
        difference = ((given - expected).norm() / expected.norm()).item()
        assert difference < 1e-5, f"{name}: relative difference {difference:.2e}"


def check_base_weights(model, base, names):
    """W~ of these layers of the class is MXINT's, in the layout of the class."""
    for name in names:
        original, quantized = model.get_submodule(name), base.get_submodule(name)
        expected = as_defined(original, original.weight)
        assert torch.equal(quantized.weight.double(), expected), (
            f"{name} differs from its definition"
        )


def check_base_types(checkpoint, base):
    """Every tensor has the type that it had: three bits are exact in all of them."""
    before, after = tensors(checkpoint), tensors(base)
    other = {
        name: after[name].dtype
        for name, tensor in before.items()
        if after[name].dtype != tensor.dtype
    }
    assert not other, f"other types: {other}"
