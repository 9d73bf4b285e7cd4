"""Cuts the slice that the firmware holds out of the shared reference data.

    make.py REFERENCE_DATA/smollm2-layers

Writes weight.bin, 128 outputs of 128 inputs, and rows.bin, 256 rows of these inputs, both bf16
little-endian, row-major: the first of model.layers.0.self_attn.q_proj of SmolLM2-135M-Instruct
(Apache-2.0) and of its own inputs on English prose.
"""

import json
import struct
import sys
from pathlib import Path

INPUTS, OUTPUTS, ROWS = 128, 128, 256


def main():
    file = (Path(sys.argv[1]) / "q_proj_l0.safetensors").read_bytes()
    (length,) = struct.unpack_from("<Q", file)
    header = json.loads(file[8 : 8 + length])
    for name, tensor, rows in [("weight.bin", "weight", OUTPUTS), ("rows.bin", "x", ROWS)]:
        entry = header[tensor]
        assert entry["dtype"] == "BF16"
        width, start = entry["shape"][1], 8 + length + entry["data_offsets"][0]
        cut = b"".join(file[start + 2 * width * row :][: 2 * INPUTS] for row in range(rows))
        (Path(__file__).parent / name).write_bytes(cut)


if __name__ == "__main__":
    main()
