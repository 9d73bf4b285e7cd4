"""Cuts what came over a serial line into shards, and has the daemon fold them.

    fold.py DAEMON LINE WORK

The checkpoint holds the firmware's slice as a layer. All shards are given, the one of sums a second
time under another name (the same file: it counts once), and once as another device would have sent
it (another file: it counts). The error has to come out as the device reported it, within what the
few rows that were sent apart change.
"""

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

KEY = "model.layers.0.self_attn.q_proj"
FOLDED, APART = 240, 16


def files(line):
    """The safetensors files that a stream is made of."""
    at = 0
    while at < len(line):
        (length,) = struct.unpack_from("<Q", line, at)
        header = json.loads(line[at + 8 : at + 8 + length])
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        end = at + 8 + length + max(ends)
        yield line[at:end]
        at = end


def checkpoint(folder):
    weight = (Path(__file__).parents[2] / "firmware/data/weight.bin").read_bytes()
    entry = {"dtype": "BF16", "shape": [128, 128], "data_offsets": [0, len(weight)]}
    header = json.dumps({f"{KEY}.weight": entry}).encode()
    header += b" " * (-len(header) % 8)
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + weight)
    (folder / "config.json").write_text('{"model_type": "llama"}')


def run(daemon, work, shards):
    """The manifest's entry of the layer, after a run over these shards."""
    shutil.rmtree(work, ignore_errors=True)
    checkpoint(work / "checkpoint")
    (work / "activations").mkdir()
    for name, shard in shards.items():
        (work / "activations" / f"{name}.safetensors").write_bytes(shard)
    done = subprocess.run(
        [daemon, "--once", "--watch", "activations", "--checkpoint", "checkpoint", "--quantizer", "mxint3",
         "--rank", "8", "--shrinkage", "0"], cwd=work, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"fold: the daemon ended with {done.returncode}\n{done.stderr}")
    manifest = json.loads((work / "qera-out/current/qera_manifest.json").read_text())
    (layer,) = manifest["layers"]
    return layer


def main():
    daemon, line, work = str(Path(sys.argv[1]).resolve()), Path(sys.argv[2]).read_bytes(), Path(sys.argv[3])
    *rows, sums = files(line)
    shards = {f"rows-{i}": shard for i, shard in enumerate(rows)} | {"sums": sums}
    once = run(daemon, work, shards)
    again = run(daemon, work, shards | {"sums-again": sums})
    other = sums.replace(b'"board-0"', b'"board-1"')
    both = run(daemon, work, shards | {"sums-of-another": other})
    counted = [once["rows"], again["rows"], both["rows"]]
    if counted != [FOLDED + APART, FOLDED + APART, 2 * FOLDED + APART]:
        sys.exit(f"fold: rows counted: {counted}")
    error = once["error"]
    print(f"fold: {len(shards)} shards folded, error {error['without']:.6f} -> {error['with']:.6f}; "
          f"sent twice {again['rows']} rows, of two devices {both['rows']}")
    if not error["with"] < 0.25 * error["without"] or again["error"] != error:
        sys.exit("fold: the error is not what it should be")


if __name__ == "__main__":
    main()
