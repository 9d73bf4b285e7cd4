"""Has a function called with a module of vLLM's once that is imported: a plugin comes before most
of them."""

import importlib.abc
import importlib.util
import sys


class _After(importlib.abc.Loader):
    """A module's own loader, and what is to be done then."""

    def __init__(self, loader, then):
        self.loader, self.then = loader, then

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        module.__loader__ = module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        self.then(module)

    def __getattr__(self, name):
        return getattr(self.loader, name)


class Imports(importlib.abc.MetaPathFinder):
    """Functions by the name of the module that they wait for."""

    def __init__(self):
        self.waiting, self.looking = {}, False

    def after(self, name, function):
        """`function(module)` is called after the import, or at once. It must not raise."""
        if name in sys.modules:
            function(sys.modules[name])
            return
        self.waiting.setdefault(name, []).append(function)
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def find_spec(self, name, path=None, target=None):
        if name not in self.waiting or self.looking:
            return None
        self.looking = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.looking = False
        if spec is None or spec.loader is None:
            return None
        functions = self.waiting.pop(name)
        spec.loader = _After(spec.loader, lambda module: [function(module) for function in functions])
        return spec
