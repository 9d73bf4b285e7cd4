"""Holds the layers of two runs on the fixture against each other.

    agreement.py WORK

WORK/arm and WORK/here are the outputs of the emulated daemon and of this machine's;
WORK/replayed.json is what `verify --replay` of this machine says of the former.
Fails where a layer is missing, where an error differs by more than TOLERANCE of itself, or where a
replayed figure is not the one that the emulated daemon claims.
"""

import json
import sys
from pathlib import Path

# neon and portable add in the same order; 8e-12 was measured.
TOLERANCE = 1e-9


def layers(folder):
    manifest = json.loads((folder / "current" / "qera_manifest.json").read_text())
    return manifest["kernels"], {layer["name"]: layer["error"] for layer in manifest["layers"]}


def main():
    work = Path(sys.argv[1])
    kernels, arm = layers(work / "arm")
    _, here = layers(work / "here")
    if set(kernels.values()) != {"neon"}:
        sys.exit(f"agreement: the emulated run multiplied by {kernels}")
    if len(arm) != 28 or arm.keys() != here.keys():
        sys.exit(f"agreement: {len(arm)} and {len(here)} layers")
    worst = {}
    for kind in ("without", "rounded"):
        for name in arm:
            difference = abs(arm[name][kind] / here[name][kind] - 1)
            worst[kind] = max(worst.get(kind, (0.0, "")), (difference, name))
    for kind, (difference, name) in worst.items():
        print(f"agreement: error.{kind} differs by {difference:.1e} at most ({name})")
    replayed = json.loads((work / "replayed.json").read_text())["replay"]
    verdicts = [layer["verdict"] for form in replayed for layer in form["layers"]]
    print(f"agreement: {verdicts.count('same')} of {len(verdicts)} replayed layers have the errors claimed")
    if len(verdicts) < 28 or set(verdicts) != {"same"}:
        sys.exit(1)
    if any(difference > TOLERANCE for difference, _ in worst.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
