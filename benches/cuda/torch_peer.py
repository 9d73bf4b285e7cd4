"""The same work as cuda_check's by torch, on the same device: the routes that we would take there.

    torch_peer.py [--cpu] SIZE...

The reference implementation does this work on the CPU, so these routes are ours, not its: the
hook's einsum in f32 with TF32 off, added to R in f64; and of a solve the eigenvectors of E^T R E by
eigh, or the SVD of the scaled error with R's square root by eigh. One JSON object a line: what was
done when the time is over is there. f of both routes is tr(R P P^T) of what they leave of E.

--cpu tries the script where there is no device, at small sizes; its times mean nothing.
"""

import json
import sys
import time

import torch

BATCH, BATCHES, RANK = 2048, 32, 32


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(work, device):
    """Of one run, after one that is not counted; and what that one gave."""
    work()
    wait(device)
    start = time.perf_counter()
    found = work()
    wait(device)
    return time.perf_counter() - start, found


def accumulate(m, dtype, device):
    rows = torch.randn(BATCH, m).to(dtype)
    if device == "cuda":
        rows = rows.pin_memory()
    r = torch.zeros(m, m, dtype=torch.float64, device=device)

    def fold():
        for _ in range(BATCHES):
            x = rows.to(device, non_blocking=True).float()
            r.add_(torch.einsum("bi,bj->ij", x, x))

    each = seconds(fold, device)[0] / BATCHES
    return {"part": "accumulate", "m": m, "dtype": str(dtype).split(".")[1], "torch_s": each}


def by_eigh(r, e):
    g = e.double().T @ r @ e.double()
    v = torch.linalg.eigh(g).eigenvectors[:, -RANK:].float()
    return e @ v, v.T


def by_svd(r, e):
    values, vectors = torch.linalg.eigh(r)
    root = values.clamp(min=0).sqrt()
    half = (vectors * root) @ vectors.T
    u, s, vh = torch.linalg.svd((half @ e.double()).float(), full_matrices=False)
    inverse = (vectors / root.clamp(min=1e-30)) @ vectors.T
    return (inverse.float() @ u[:, :RANK]) * s[:RANK], vh[:RANK]


def solve(m, n, device):
    x = torch.randn(2 * m, m, device=device)
    r = (x.T @ x / (2 * m)).double()
    e = torch.randn(m, n, device=device) * 0.01
    for name, route in [("eigh", by_eigh), ("svd", by_svd)]:
        found = {"part": "solve", "m": m, "n": n, "rank": RANK, "route": name}
        try:
            found["torch_s"], (a, b) = seconds(lambda: route(r, e), device)
            left = e.double() - a.double() @ b.double()
            found["f"] = torch.einsum("ij,ij->", r @ left, left).item()
        except RuntimeError as error:  # for want of memory, above all
            found["error"] = str(error).splitlines()[0]
        yield found


def measured(sizes, device):
    name = torch.cuda.get_device_name() if device == "cuda" else "the CPU, to try the script"
    yield {"part": "torch", "version": torch.__version__, "device": name}
    for m in sizes:
        for dtype in [torch.bfloat16, torch.float16, torch.float32]:
            yield accumulate(m, dtype, device)
    for m in sizes:
        yield from solve(m, m, device)
    if 4096 in sizes:
        yield from solve(11008, 4096, device)


def main():
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.manual_seed(1)
    arguments = sys.argv[1:]
    device = "cpu" if arguments[:1] == ["--cpu"] else "cuda"
    sizes = [int(size) for size in arguments if size != "--cpu"]
    for found in measured(sizes, device):
        print(json.dumps(found), flush=True)


main()
