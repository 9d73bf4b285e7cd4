"""The same work as cuda_check's by torch, on the same device: the routes that we would take there.

    torch_peer.py SIZE...

The reference implementation does this work on the CPU, so these routes are ours, not its: the
hook's einsum in f32 with TF32 off, added to R in f64; and of a solve the eigenvectors of E^T R E by
eigh, or the SVD of the scaled error with R's square root by eigh. One JSON object on standard
output.
"""

import json
import sys
import time

import torch

BATCH, BATCHES, RANK = 2048, 32, 32


def seconds(work):
    """Of one run, after one that is not counted."""
    work()
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def accumulate(m, dtype):
    rows = torch.randn(BATCH, m).to(dtype).pin_memory()
    r = torch.zeros(m, m, dtype=torch.float64, device="cuda")

    def fold():
        for _ in range(BATCHES):
            x = rows.to("cuda", non_blocking=True).float()
            r.add_(torch.einsum("bi,bj->ij", x, x))

    return {"m": m, "dtype": str(dtype).split(".")[1], "torch_s": seconds(fold) / BATCHES}


def solve(m, n):
    x = torch.randn(2 * m, m, device="cuda")
    r = (x.T @ x / (2 * m)).double()
    e = torch.randn(m, n, device="cuda") * 0.01
    found = {"m": m, "n": n, "rank": RANK}

    def by_eigh():
        g = e.double().T @ r @ e.double()
        v = torch.linalg.eigh(g).eigenvectors[:, -RANK:].float()
        return e @ v, v.T

    def by_svd():
        values, vectors = torch.linalg.eigh(r)
        root = values.clamp(min=0).sqrt()
        half = (vectors * root) @ vectors.T
        u, s, vh = torch.linalg.svd((half @ e.double()).float(), full_matrices=False)
        inverse = (vectors / root.clamp(min=1e-30)) @ vectors.T
        return inverse.float() @ u[:, :RANK] * s[:RANK], vh[:RANK]

    for name, work in [("eigh", by_eigh), ("svd", by_svd)]:
        try:
            found[f"torch_{name}_s"] = seconds(work)
        except RuntimeError as error:  # for want of memory, above all
            found[f"torch_{name}_error"] = str(error).splitlines()[0]
    return found


def main():
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.manual_seed(1)
    sizes = [int(size) for size in sys.argv[1:]]
    types = [torch.bfloat16, torch.float16, torch.float32]
    print(json.dumps({
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(),
        "accumulate": [accumulate(m, dtype) for m in sizes for dtype in types],
        "solve": [solve(m, m) for m in sizes] + ([solve(11008, 4096)] if 4096 in sizes else []),
    }))


main()
