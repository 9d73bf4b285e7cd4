"""OUT/base-compressed-tensors, unpacked by the library compressed-tensors, is W~ of OUT/base.

The library as a whole wants a newer torch than Debian's; the file that packs and unpacks words
stands alone. The library's own `decompress` made the vectors in tests/packed_base, and reads a
folder in the long form of tests/vllm.
"""

import importlib.util
import json
import pathlib

import torch
from safetensors.torch import load_file

# Options, and whether the product of code and scale is W~ in the scale's own type, too.
GRIDS = (
    (("--quantizer", "mxint4"), True),
    (("--quantizer", "mxint8"), True),
    (("--quantizer", "int4"), False),
    (("--quantizer", "int4", "--zero-points", "--block-size", "64"), False),
)
HELPERS = "compressed_tensors/compressors/pack_quantized/helpers.py"


def library():
    """The file of the installed package, without the package around it."""
    package = importlib.util.find_spec("compressed_tensors")
    path = pathlib.Path(package.origin).parent.parent / HELPERS
    spec = importlib.util.spec_from_file_location("pack_quantized_helpers", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def unpacked(tensors, module, scheme):
    """As the library's `decompress`: (codes, zero points, scales), each spread over the weight's
    columns."""
    part = {name: tensors.get(f"{module}.weight_{name}") for name in ("packed", "scale", "shape", "zero_point")}
    bits, group = scheme["num_bits"], scheme["group_size"]
    codes = library().unpack_from_int32(part["packed"], bits, part["shape"])
    spread = lambda of: of.repeat_interleave(group, dim=1)
    assert part["scale"].shape[1] * group == codes.shape[1], module
    if scheme["symmetric"]:
        assert part["zero_point"] is None, module
        return codes.int(), torch.zeros_like(codes).int(), spread(part["scale"])
    shape = torch.tensor([part["shape"][0], part["scale"].shape[1]])
    points = library().unpack_from_int32(part["zero_point"], bits, shape, packed_dim=0)
    return codes.int(), spread(points.int()), spread(part["scale"])


class PackedTests:
    def __init__(self, daemon):
        self.daemon = daemon

    def test_the_library_reads_w_of_the_plain_base(self):
        for options, exact in GRIDS:
            out = self.daemon.once(*options, "--rank", 4, "--emit-base=hf,compressed-tensors")
            self.compare(out, exact)
            for base in ("base", "base-compressed-tensors"):
                self.daemon.verify(out, base)

    def test_a_fused_module_is_packed_whole_or_not_at_all(self):
        options = ("--exclude", "model.layers.2.self_attn.v_proj", "--emit-base=hf,compressed-tensors", "--rank", 4)
        out = self.daemon.once(*options)
        ignored = self.compare(out, True)
        assert ignored == ["lm_head"] + [f"model.layers.2.self_attn.{part}_proj" for part in "kqv"], ignored

    def compare(self, out, exact):
        folder = out / "base-compressed-tensors"
        config = json.loads((folder / "config.json").read_text())["quantization_config"]
        scheme = config["config_groups"]["group_0"]["weights"]
        packed, plain = load_file(folder / "model.safetensors"), load_file(out / "base/model.safetensors")
        read = 0
        for name, weight in plain.items():
            if name in packed:
                assert torch.equal(packed[name], weight) and packed[name].dtype == weight.dtype, name
                continue
            codes, points, scales = unpacked(packed, name.removesuffix(".weight"), scheme)
            difference = (codes - points).float()
            assert torch.equal(difference * scales.float(), weight.float()), name
            if exact:
                assert scales.dtype is torch.bfloat16, name
                assert torch.equal((difference.bfloat16() * scales).float(), weight.float()), name
            read += 1
        ignored = config["ignore"]
        assert read == 28 - len([name for name in ignored if name != "lm_head"]), (read, ignored)
        return ignored
