"""What sums in the place of rows cost and save: bytes a token and CPU seconds, of a model of
SmolLM2-135M's sizes.

    $(tests/peft/setup.sh) tests/models/sums_cost.py FOLDER [BLOCKS] [SEQUENCES]

Sequences of 1,024 tokens, one a call, in f32 with rows written as bf16: without a tap, with rows,
with sums. FOLDER is where shards are written (and removed): on the disk that is meant, or on a
tmpfs. Bytes are of as many tokens as there are; more of them share the same sums.
"""

import pathlib
import sys
import tempfile

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "taps"))

import torch
import transformers
from hugging_face import Tap
from overhead import SIZES, seconds

LENGTH = 1024


def main():
    place, more = pathlib.Path(sys.argv[1]), [int(number) for number in sys.argv[2:]]
    blocks, sequences = more + [6, 16][len(more) :]
    model = transformers.LlamaModel(transformers.LlamaConfig(**SIZES, num_hidden_layers=blocks)).eval()
    drawn = torch.Generator().manual_seed(0)
    calls = [torch.randint(0, SIZES["vocab_size"], (1, LENGTH), generator=drawn) for _ in range(sequences)]

    def run(options):
        """CPU seconds, and bytes of shards with and without sums."""
        with torch.no_grad(), tempfile.TemporaryDirectory(dir=place) as folder:
            if options is None:
                return seconds(lambda: [model(tokens) for tokens in calls]), 0, 0
            with Tap(model, folder, dtype="bf16", strict=True, max_bytes=2**40, **options) as tap:
                took = seconds(lambda: [model(tokens) for tokens in calls] + [tap.close()])
            sizes = [shard.stat().st_size for shard in sorted(pathlib.Path(folder).iterdir())]
        of_sums = sizes[-1] if options else 0  # they are written at the end, together
        return took, sum(sizes), of_sums

    run(None)
    tokens = sequences * LENGTH
    for name, options in (("no tap", None), ("rows", {}), ("sums", {"sums": True, "sum_rows": 10**9})):
        took, size, of_sums = run(options)
        print(f"{name}: {took:.1f} CPU s, {size / tokens:.0f} bytes a token, {of_sums / 1e6:.1f} MB of them sums")


if __name__ == "__main__":
    main()
