"""The README's live use, run as it stands: a daemon, and another process whose model feeds it."""

import os
import re
import shlex
import subprocess
import sys

import peft
from daemon import generation_manifest, generations, manifest
from fixture import ROOT, calibration_tokens, linear_names, load_model
from readme import LIVE_DAEMON, LIVE_ENGINE, code_block
from unseen import UnseenRows

CARGO = "cargo run --release -p qera-daemon --"
SHARDS, ROWS = 16, 8192
BITS = 3
GENERATIONS_AT_LEAST = 3
STATUS_HEADER = re.compile(r"^layer +status .*$", re.MULTILINE)
SECONDS = 120


class LiveTests:
    def __init__(self, daemon, readme):
        self.daemon, self.folder = daemon, daemon.work / "live"
        self.folder.mkdir()
        (self.folder / "fixtures").symlink_to(ROOT / "fixtures")
        command = code_block(readme, LIVE_DAEMON, "sh")
        assert command.count(CARGO) == 1, f"not one {CARGO!r} after {LIVE_DAEMON}"
        command = command.replace(CARGO, f"exec {shlex.quote(str(daemon.binary))}")  # exec: signals reach the daemon
        engine = code_block(readme, LIVE_ENGINE, "python")
        with daemon.live(["sh", "-e", "-c", command], self.folder) as live:
            live.wait_until_watching()
            command = [sys.executable, "-c", engine]
            path = os.pathsep.join([str(ROOT / "taps"), os.environ.get("PYTHONPATH", "")])
            options = dict(cwd=self.folder, env=os.environ | {"PYTHONPATH": path}, timeout=SECONDS)
            fed = subprocess.run(command, capture_output=True, text=True, **options)
            assert fed.returncode == 0, f"the engine: exit code {fed.returncode}\n{fed.stderr[-3000:]}"
            self.idle = live.wait_until_idle(SHARDS, SECONDS)
            self.table = live.status()
            self.exit_code = live.stop()
        self.out, self.published = live.out, live.said("published generation")

    def test_status_says_running_and_idle(self):
        assert self.idle["running"] is True, self.idle
        assert {layer["rows"] for layer in self.idle["layers"]} == {ROWS}, self.idle

    def test_sigterm_ends_well(self):
        assert self.exit_code == 0, f"exit code {self.exit_code}"

    def test_generations_were_published(self):
        assert self.published >= GENERATIONS_AT_LEAST, f"{self.published} generations"

    def test_every_layer_is_solved_from_all_rows(self):
        layers = manifest(self.out)["layers"]
        assert {layer["name"] for layer in layers} == set(linear_names(load_model()))
        for layer in layers:
            assert layer["rows"] == ROWS and layer["status"] == "solved", layer

    def test_current_loads_in_peft(self):
        loaded = peft.PeftModel.from_pretrained(load_model(), self.out / "current")
        corrected = [name for name, _ in loaded.named_modules() if name.endswith(".lora_A.default")]
        assert len(corrected) == len(linear_names(load_model())), corrected

    def test_error_on_unseen_rows_falls(self):
        """From the oldest generation that is kept to the last."""
        rows = UnseenRows(calibration_tokens()[:64], BITS)
        first, *_, last = generations(self.out)
        assert {layer["quantizer"] for layer in generation_manifest(last)["layers"]} == {"mxint3/32"}
        before, after = rows.error(first), rows.error(last)
        assert after < before < 1.0, f"{first.name}: {before:.4f}, {last.name}: {after:.4f} of no correction's error"

    def test_result_is_that_of_once(self):
        options = ("--quantizer", f"mxint{BITS}", "--rank", 8)
        once = self.daemon.once(*options, activations=self.folder / "activations")
        files = [out / "current/adapter_model.safetensors" for out in (self.out, once)]
        assert files[0].read_bytes() == files[1].read_bytes(), "live and --once differ on the same shards"

    def test_page_shows_the_status_table(self):
        page = (ROOT / "docs/running.md").read_text(encoding="utf-8")
        stated, real = STATUS_HEADER.findall(page), STATUS_HEADER.findall(self.table)
        assert len(stated) == len(real) == 1, f"docs/running.md: {stated}, status: {real}"
        assert stated[0].split() == real[0].split(), f"docs/running.md: {stated[0]}\nstatus: {real[0]}"
