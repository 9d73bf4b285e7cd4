"""The entry point, in a process of its own with a package that looks to it like vLLM."""

import pathlib
import subprocess
import sys

PACKAGE = {
    "vllm/__init__.py": "",
    "vllm/version.py": "__version__ = {version!r}",
    "vllm/distributed.py": "def get_tensor_model_parallel_rank():\n    return {rank}",
    "vllm/lora/__init__.py": "",
    "vllm/lora/layers.py": "from stand_ins import BaseLayerWithLoRA",
    "vllm/lora/worker_manager.py": (
        "class LRUCacheWorkerLoRAManager:\n    def add_adapter(self, request): pass\n"
        "    def _apply_adapters(self, all): pass"
    ),
    "vllm/model_executor/__init__.py": "",
    "vllm/model_executor/layers/__init__.py": "",
    "vllm/model_executor/layers/linear.py": "from stand_ins import LinearBase, RowParallelLinear",
    "vllm/entrypoints/__init__.py": "",
    "vllm/entrypoints/openai/__init__.py": "",
    "vllm/entrypoints/openai/models/__init__.py": "",
    "vllm/entrypoints/openai/models/serving.py": (
        "class OpenAIServingModels:\n    async def load_lora_adapter(self): pass\n"
        "    async def show_available_models(self): return self"
    ),
    "vllm/v1/__init__.py": "",
    "vllm/v1/worker/__init__.py": "",
    "vllm/v1/worker/worker_base.py": (
        "class WorkerWrapperBase:\n    def execute_model(self, output): return self.worker.execute_model(output)"
    ),
    "vllm/v1/worker/gpu_model_runner.py": (
        "from stand_ins import FirstRunner, Model, configuration\n"
        "class GPUModelRunner(FirstRunner):\n"
        "    def __init__(self, config=None):\n        super().__init__(None, config)\n"
        "    def load_model(self, load_dummy_weights=False):\n        self.model = Model()"
    ),
    "vllm/v1/worker/cpu_model_runner.py": (
        "from .gpu_model_runner import GPUModelRunner, Model\n"
        "class CPUModelRunner(GPUModelRunner):\n    def load_model(self):\n        self.model = Model(wrapped=True)"
    ),
    "vllm/v1/worker/gpu/__init__.py": "",
    "vllm/v1/worker/gpu/model_runner.py": (
        "from stand_ins import SecondRunner, Model\n"
        "class GPUModelRunner(SecondRunner):\n"
        "    def __init__(self, config=None):\n        super().__init__(None, config)\n"
        "    def load_model(self, *arguments, **options):\n        self.model = Model()"
    ),
}
START = "from qera_vllm.plugin import register\nregister()\nregister()\n"
SERVE = """
import {module} as module
from stand_ins import configuration, new, schedule
runner = module.{kind}(configuration({changes}))
runner.load_model()
for number in range(3):
    key = "r%d" % number
    runner.execute_model(schedule({{key: 40}}, [new(key)]))
    runner.execute_model(schedule({{}}, finished=[key]))
print(len(runner.passed))
"""
KINDS = {
    "vllm.v1.worker.gpu_model_runner": "GPUModelRunner",
    "vllm.v1.worker.cpu_model_runner": "CPUModelRunner",
    "vllm.v1.worker.gpu.model_runner": "GPUModelRunner",
}


class PluginTests:
    def __init__(self, work):
        self.work, self.number = work, 0

    def run(self, code, version="0.32.0+cpu", rank=0, tap=True, **environment):
        """What a process prints that runs `code` after the entry point; its standard error; the
        shards."""
        self.number += 1
        folder = self.work / str(self.number)
        for name, text in PACKAGE.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("{version!r}", repr(version)).replace("{rank}", str(rank)))
        environment |= {"PYTHONPATH": ":".join([str(folder), *filter(None, sys.path)]), "OMP_NUM_THREADS": "1"}
        if tap:
            environment["QERA_TAP"] = str(folder / "shards")
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr, sorted(pathlib.Path(folder / "shards").glob("*.safetensors"))

    @staticmethod
    def serve(module, changes=""):
        return SERVE.format(module=module, kind=KINDS[module], changes=changes)

    def test_every_runner_is_found_whenever_it_is_imported(self):
        for module in KINDS:
            for code in (START + self.serve(module), f"import {module}\n" + START + self.serve(module)):
                out, said, shards = self.run(code)
                assert (out, len(shards)) == ("3\n", 3), said
                assert said.count("8 inputs of 14 linear layers are recorded") == 1, said
                assert said.count("qera tap: ") == 2 and "120 rows in 3 shards" in said, said

    def test_silent_where_nobody_asks(self):
        for environment in ({"tap": False}, {"QERA_TAP": "", "tap": False}):
            out, said, shards = self.run(START + self.serve("vllm.v1.worker.gpu_model_runner"), **environment)
            assert (out, said, shards) == ("3\n", "", [])

    def test_an_untested_version_is_off_with_one_line(self):
        out, said, shards = self.run(START + self.serve("vllm.v1.worker.gpu_model_runner"), version="0.99.1")
        assert (out, shards, said.count("\n")) == ("3\n", [], 1) and "vLLM 0.99.1" in said and "0.32.0" in said, said

    def test_compiled_models_are_off_with_one_line(self):
        changes = 'compilation_config__mode=type("Mode", (), {"name": "VLLM_COMPILE"})'
        out, said, shards = self.run(START + self.serve("vllm.v1.worker.gpu_model_runner", changes))
        assert (out, shards, said.count("\n")) == ("3\n", [], 1) and "--enforce-eager" in said, said

    def test_a_wrong_setting_is_off_with_one_line(self):
        code = START + self.serve("vllm.v1.worker.gpu_model_runner")
        out, said, shards = self.run(code, QERA_TAP_EVERY="often")
        assert (out, shards, said.count("\n")) == ("3\n", [], 1) and "QERA_TAP_EVERY='often'" in said, said

    def test_other_ranks_are_silent(self):
        out, said, shards = self.run(START + self.serve("vllm.v1.worker.gpu_model_runner"), rank=1)
        assert (out, said, shards) == ("3\n", "", [])

    def test_a_worker_without_a_known_runner_says_so(self):
        code = START + (
            "from vllm.v1.worker.worker_base import WorkerWrapperBase\n"
            "from stand_ins import FirstRunner, Model, new, schedule\n"
            "wrapper = WorkerWrapperBase()\nwrapper.worker = FirstRunner(Model())\n"
            "for _ in range(2):\n    wrapper.execute_model(schedule({'a': 40}, [new('a')]))\n"
        )
        _, said, shards = self.run(code)
        assert shards == [] and said.count("\n") == 1 and "a model runner that it does not know" in said, said

    def test_adapters_are_mended_without_the_tap_and_for_tested_versions_alone(self):
        code = START + (
            "from vllm.entrypoints.openai.models.serving import OpenAIServingModels as Models\n"
            "from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager as Manager\n"
            "print(hasattr(Models.load_lora_adapter, '__wrapped__'), hasattr(Manager.add_adapter, '__wrapped__'))\n"
        )
        assert self.run(code, tap=False)[:2] == ("True True\n", "")
        assert self.run(code, tap=False, version="0.99.1")[:2] == ("False False\n", "")

    def test_a_package_that_lacks_everything_is_no_failure(self):
        code = "import sys, types\nsys.modules['vllm'] = types.ModuleType('vllm')\n" + START + "print('goes on')"
        out, said, _ = self.run(code)
        assert out == "goes on\n", said

    def test_the_entry_point_is_what_the_package_names(self):
        import tomllib

        project = pathlib.Path(__file__).resolve().parents[3] / "taps/vllm/pyproject.toml"
        points = tomllib.loads(project.read_text())["project"]["entry-points"]["vllm.general_plugins"]
        assert points == {"qera": "qera_vllm.plugin:register"}
