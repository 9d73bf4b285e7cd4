"""Compiles every kernel by NVRTC, holds the PTX against what is shipped, and assembles it by ptxas.

    kernels.py PACKAGES [--write]

PACKAGES is where the packages of requirements.txt lie; --write writes the PTX in place of
comparing. Prints the registers of each kernel on each device; a kernel that spills fails.
"""

import ctypes
import pathlib
import re
import subprocess
import sys
import tempfile

KERNELS = pathlib.Path(__file__).resolve().parents[2] / "qera-gpu" / "src" / "kernels"
# The oldest device that is served; fma where a kernel says so and nowhere else.
OPTIONS = [b"--gpu-architecture=compute_80", b"--fmad=false"]
DEVICES = ["sm_80", "sm_90", "sm_100"]


class Nvrtc:
    """NVRTC, as far as it is needed; every answer is checked."""

    def __init__(self, packages):
        self.library = ctypes.CDLL(str(packages / "nvidia/cuda_nvrtc/lib/libnvrtc.so.12"))

    def call(self, name, *arguments):
        code = getattr(self.library, "nvrtc" + name)(*arguments)
        if code != 0:
            raise RuntimeError(f"nvrtc{name} answers {code}")

    def text(self, program, what):
        size = ctypes.c_size_t()
        self.call(f"Get{what}Size", program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        self.call(f"Get{what}", program, text)
        return text.value.decode()

    def compile(self, source):
        headers = sorted(KERNELS.glob("*.cuh"))
        texts = (ctypes.c_char_p * len(headers))(*[header.read_bytes() for header in headers])
        names = (ctypes.c_char_p * len(headers))(*[header.name.encode() for header in headers])
        options = (ctypes.c_char_p * len(OPTIONS))(*OPTIONS)
        program = ctypes.c_void_p()
        self.call("CreateProgram", ctypes.byref(program), source.read_bytes(),
                  source.name.encode(), len(headers), texts, names)
        try:
            self.call("CompileProgram", program, len(OPTIONS), options)
            return self.text(program, "PTX")
        except RuntimeError as error:
            log = self.text(program, "ProgramLog")
            raise SystemExit(f"{source.name}: {error}\n{log}") from None
        finally:
            self.call("DestroyProgram", ctypes.byref(program))


def assemble(ptxas, ptx, device):
    """Registers of each kernel of a file on a device."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as out:
        options = [f"--gpu-name={device}", "-v", "--warning-as-error", "-o", out.name]
        done = subprocess.run([ptxas, *options, str(ptx)], capture_output=True, text=True)
    said = done.stdout + done.stderr
    if done.returncode != 0:
        raise SystemExit(f"{ptx.name} on {device}: {said}")
    found = {}
    for part in said.split("Compiling entry function ")[1:]:
        name = re.match(r"'(\w+)'", part).group(1)
        spills = [int(bytes_) for bytes_ in re.findall(r"(\d+) bytes spill", part)]
        if len(spills) != 2 or any(spills):
            raise SystemExit(f"{name} on {device} spills: {part}")
        found[name] = int(re.search(r"Used (\d+) registers", part).group(1))
    return found


def main():
    packages = pathlib.Path(sys.argv[1])
    write = sys.argv[2:] == ["--write"]
    nvrtc, ptxas = Nvrtc(packages), str(packages / "nvidia/cuda_nvcc/bin/ptxas")
    registers, differing = {}, []
    for source in sorted(KERNELS.glob("*.cu")):
        ptx, text = source.with_suffix(".ptx"), nvrtc.compile(source)
        if write:
            ptx.write_text(text)
        elif not ptx.exists() or ptx.read_text() != text:
            differing.append(ptx.name)
            continue
        for device in DEVICES:
            for name, used in assemble(ptxas, ptx, device).items():
                registers.setdefault(name, {})[device] = used
    for name, used in sorted(registers.items()):
        print(f"  {name}: registers " + ", ".join(f"{device} {n}" for device, n in used.items()))
    declared = {name for source in KERNELS.glob("*.cu")
                for name in re.findall(r"__global__ void (\w+)\(", source.read_text())}
    if differing:
        raise SystemExit(f"not what the source compiles to (ci/cuda/run.sh --write-ptx): {differing}")
    if not declared or set(registers) != declared:
        raise SystemExit(f"declared {sorted(declared)}, assembled {sorted(registers)}")
    sources = {source.stem for source in KERNELS.glob("*.cu")}
    if stray := {ptx.stem for ptx in KERNELS.glob("*.ptx")} - sources:
        raise SystemExit(f"PTX without a source: {sorted(stray)}")
    print(f"kernels={len(registers)} devices={len(DEVICES)} spills=0 ptx=equal")


main()
