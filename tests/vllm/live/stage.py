"""What the checks have in common, each made when it is first asked for."""

import functools
import importlib.util
import os
import pathlib
import shutil
import sys

import batch
from material import ROOT, Material
from processes import run
from server import Server, command

PLUGINS = ("recorder", "waiting")  # of the tests' own: silent but for a variable of their environment
GIB = 1 << 30


class Stage:
    def __init__(self, daemon, source, work):
        self.daemon, self.work, self.figures = pathlib.Path(daemon).resolve(), pathlib.Path(work).resolve(), {}
        self.material = Material(source)
        self.work.mkdir(parents=True, exist_ok=True)

    @functools.cached_property
    def plugins(self):
        """A folder with the tap's package, as pip installs it, and the tests' own plugins."""
        folder = self.work / "plugins"
        shutil.rmtree(folder, ignore_errors=True)
        package = self.work / "package"  # a copy: building leaves files beside the source
        shutil.rmtree(package, ignore_errors=True)
        built = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
        shutil.copytree(ROOT / "taps/vllm", package, ignore=built)
        pip = ["/usr/bin/python3", "-m", "pip"]
        if importlib.util.find_spec("pip"):
            pip = [sys.executable, "-m", "pip"]
        options = ["--quiet", "--no-deps", "--disable-pip-version-check", "--root-user-action", "ignore"]
        run([*pip, "install", *options, "--target", folder, package])
        for name in PLUGINS:
            module = f"qera_test_{name}"
            shutil.copy(pathlib.Path(__file__).with_name(f"{name}.py"), folder / f"{module}.py")
            about = folder / f"{module}-1.dist-info"
            about.mkdir()
            (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1\n")
            (about / "entry_points.txt").write_text(f"[vllm.general_plugins]\n{module} = {module}:register\n")
        return folder

    @functools.cached_property
    def batch(self):
        return batch.Batch(self.daemon, self.material, self.work)

    def folder(self, name):
        """An empty one."""
        folder = self.work / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def tap(self, folder, **more):
        """The environment that switches the tap on."""
        return {"QERA_TAP": folder, "QERA_TAP_MAX_BYTES": 16 * GIB, **more}

    def server(self, name, model, *options, tap=None, dtype="bfloat16", goes_on=False, port=None):
        """`tap`: what `self.tap` gives; without it the plugins are there, and silent. `goes_on`: in
        the same log."""
        return self.start(name, command(sys.executable, model, dtype, options), tap or {}, goes_on, port)

    def start(self, name, words, environment, goes_on=False, port=None):
        log = self.work / f"{name}.log"
        if not goes_on:
            log.unlink(missing_ok=True)
        return Server(words, log, {"PYTHONPATH": self.plugins} | environment, port)
