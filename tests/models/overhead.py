"""What the tap costs: CPU time of a forward pass with it and without it, in turn, of a model of
SmolLM2-135M's sizes.

    $(tests/peft/setup.sh) tests/models/overhead.py FOLDER [BLOCKS]

FOLDER is where shards are written (and removed): on the disk that is meant, or on a tmpfs.
"""

import pathlib
import statistics
import sys
import tempfile
import time

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "taps"))

import torch
import transformers
from hugging_face import Tap

PASSES = 9
SIZES = dict(hidden_size=576, intermediate_size=1536, num_attention_heads=9, num_key_value_heads=3, vocab_size=49152)


def seconds(call):
    start = time.process_time()
    call()
    return time.process_time() - start


def main():
    place, blocks = pathlib.Path(sys.argv[1]), int((sys.argv[2:] or ["30"])[0])
    config = transformers.LlamaConfig(**SIZES, num_hidden_layers=blocks, tie_word_embeddings=True)
    model = transformers.LlamaForCausalLM(config).eval()
    for batch, length in ((1, 32), (4, 256)):
        tokens = torch.randint(0, 49152, (batch, length), generator=torch.Generator().manual_seed(0))
        shares, bytes_of_token = [], 0
        with torch.no_grad(), tempfile.TemporaryDirectory(dir=place) as folder:
            for _ in range(PASSES):
                without = seconds(lambda: model(tokens))
                with Tap(model, folder, strict=True):
                    shares.append(seconds(lambda: model(tokens)) / without - 1)
                for shard in pathlib.Path(folder).iterdir():
                    bytes_of_token = shard.stat().st_size / tokens.numel()
                    shard.unlink()
        middle, low, high = statistics.median(shares), min(shares), max(shares)
        size = f"{batch} x {length} tokens, {bytes_of_token / 1024:.0f} KiB a token"
        print(f"{size}: {middle:+.1%} of the forward pass (median of {PASSES}; {low:+.1%} to {high:+.1%})")


if __name__ == "__main__":
    main()
