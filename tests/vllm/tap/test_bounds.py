"""What is bounded, and what happens at the bounds: rows are dropped and counted, and nobody
waits."""

import json
import shutil
import subprocess
import sys
import time

from qera_vllm import blocks, memory, writer
from qera_vllm.requests import SHORTEST
from served import SECONDS, Served
from stand_ins import HIDDEN, WIDE, new

ROW = 4 * 2 * (3 * HIDDEN + WIDE)  # bytes of all sites, float32

PRODUCER = """
import sys
sys.path[:0] = {path!r}
from served import Served
from stand_ins import new
served = Served({folder!r}, max_bytes={limit})
for number in range(30):
    served.step({{"r%d" % number: 64}}, new("r%d" % number))
    served.end("r%d" % number)
served.close()
print(served.recorder.writer.shards, served.rows().get("folder full", 0), served.recorder.writer.folder.word)
"""


class BoundsTests:
    def __init__(self, work):
        self.work = work
        work.mkdir()

    def waiting(self, path):
        return sum(file.stat().st_size for file in path.glob("*.safetensors"))

    def test_the_folder_is_bounded_for_two_processes_together(self):
        path, limit = self.work / "two", 25 * 64 * ROW
        code = PRODUCER.format(path=sys.path, folder=str(path), limit=limit)
        both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
        counts = [process.communicate(timeout=60)[0].split() for process in both]
        written, dropped = (sum(int(count[at]) for count in counts) for at in (0, 1))
        shards = list(path.glob("*.safetensors"))
        assert len(shards) == written and written < 25 and written > 15, (written, counts)
        assert dropped == (60 - written) * 64 and self.waiting(path) <= limit
        assert counts[0][2] != counts[1][2], "the shards of two processes have one random word"
        assert not list(path.glob(".*.part"))

    def test_the_daemons_pause_is_obeyed(self):
        path = self.work / "paused"
        look, writer.LOOK_AGAIN = writer.LOOK_AGAIN, 0.02
        try:
            served = Served(path)
            pause = path / ".qera-pause"
            pause.touch()
            served.step({"a": 64}, new("a"))
            served.end("a")
            assert not served.shards() and served.rows()["folder full"] == 64
            assert "is full (qera-daemon asks for a pause)" in served.said.getvalue(), served.said.getvalue()
            pause.unlink()  # as the daemon does
            until = time.monotonic() + SECONDS
            while served.recorder.writer.is_full():
                assert time.monotonic() < until, "nobody looks again"
                time.sleep(0.01)
            served.step({"b": 64}, new("b"))
            served.end("b")
            assert served.only_shard().metadata["qera.dropped_rows"] == json.dumps(64)
        finally:
            writer.LOOK_AGAIN = look

    def test_a_full_folder_is_looked_at_again(self):
        path = self.work / "full"
        look, writer.LOOK_AGAIN = writer.LOOK_AGAIN, 0.02
        try:
            served = Served(path, max_bytes=2 * 70 * ROW)
            for key in "abc":
                served.step({key: 64}, new(key))
                served.end(key)
            assert len(served.shards()) == 1 + (2 * (64 * ROW + 4096) < 2 * 70 * ROW), served.recorder.writer.summary()
            assert served.recorder.writer.is_full()
            before = served.rows()["folder full"]
            served.step({"d": 64}, new("d"))  # nothing is copied
            served.end("d")
            assert served.rows()["folder full"] == before + 64
            assert served.said.getvalue().count("is full") <= 1
            for shard in served.shards():
                shard.path.unlink()
            until = time.monotonic() + SECONDS
            while served.recorder.writer.is_full():
                assert time.monotonic() < until, "nobody looks again"
                time.sleep(0.01)
            served.step({"e": 64}, new("e"))
            served.end("e")
            assert served.only_shard().metadata["qera.dropped_rows"] == json.dumps(before + 64)
        finally:
            writer.LOOK_AGAIN = look

    def test_a_folder_that_disappears_and_comes_back(self):
        path = self.work / "gone"
        served = Served(path)
        shutil.rmtree(path)
        for key in "ab":
            served.step({key: 40}, new(key))
            served.end(key)
        assert served.switch.on and served.rows() == {"disk": 80}, served.said.getvalue()
        path.mkdir()
        served.step({"c": 41}, new("c"))
        served.end("c")
        assert served.only_shard().length == 41 and served.recorder.blocks.out == 0

    def test_a_full_disk(self):
        served = Served(self.work / "disk")
        staging = served.recorder.writer.folder.staging
        write = staging.write

        def full(file, buffers):
            write(file, buffers[:3])
            raise OSError(28, "No space left on device")

        staging.write = full
        try:
            served.step({"a": 40}, new("a"))
            served.end("a")
        finally:
            staging.write = write
        assert served.switch.on and served.rows() == {"disk": 40}
        assert not list(served.folder.glob("*.safetensors")) and not list(served.folder.glob(".tap-*"))
        served.step({"b": 40}, new("b"))
        served.end("b")
        assert served.only_shard().length == 40

    def test_what_a_killed_tap_left_is_removed(self):
        path = self.work / "killed"
        path.mkdir()
        (path / ".tap-1.part").write_bytes(b"x" * 1000)
        Served(path)
        assert not list(path.glob(".tap-*.part"))

    def test_short_requests_are_counted(self):
        served = Served(self.work / "short")
        for key, rows in (("a", SHORTEST - 1), ("b", SHORTEST), ("c", 3)):
            served.step({key: rows}, new(key))
            served.end(key)
        assert served.only_shard().length == SHORTEST
        assert served.rows() == {"requests below 32": SHORTEST + 2}

    def test_memory_is_bounded_and_nobody_waits(self):
        waiting, share, size = blocks.WAITING, blocks.SHARE, blocks.BLOCK_BYTES
        blocks.WAITING, blocks.SHARE, blocks.BLOCK_BYTES = 0, 10**9, 64 * ROW
        try:
            served = Served(self.work / "memory")
        finally:
            blocks.WAITING, blocks.SHARE, blocks.BLOCK_BYTES = waiting, share, size
        pool, queue = served.recorder.blocks, served.recorder.writer.queue
        assert (pool.rows, pool.most) == (64, blocks.LEAST_BLOCKS)
        held = []
        queue.put((lambda _: [time.sleep(0.002) for _ in iter(lambda: not held, False)], None))  # a disk that hangs
        served.step({"a": 1000}, new("a"))
        served.step({"a": 10})
        assert served.rows() == {"memory": 1000 - 256 + 10}
        assert pool.out == pool.most
        held.append(True)
        served.end("a")
        assert sum(shard.length for shard in served.shards()) == 256 and pool.out == 0
        rows = sum((shard.tensors["model.layers.0.mlp.down_proj"][0].tolist() for shard in served.shards()), [])
        assert rows == served.heard["model.layers.0.mlp.down_proj"][0][:256].tolist()
        served.step({"b": 40}, new("b"))
        served.end("b")
        assert served.shards()[-1].length == 40

    def test_memory_has_a_limit_of_its_own_and_heeds_that_of_a_control_group(self):
        available = blocks.available
        try:
            for may_use, row_bytes, want in (
                (2**40, 1_490_944, 2 * 2**30),  # 7B, steps of 8,192 tokens, on a machine of a TiB
                (2**40, 1000, 512 * 2**20),
                (2**30, 1_490_944, 2**27),
            ):
                blocks.available = lambda: may_use
                assert blocks.limit(row_bytes, 8192) == want, (may_use, row_bytes)
        finally:
            blocks.available = available
        for name, lines, files, want in (
            ("v2", "0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "4096000"}, 4096000),
            ("v1", "9:cpu,memory:/a\n1:cpu:/\n", {"memory/a/memory.limit_in_bytes": "8192000"}, 8192000),
            ("a container's", "0::/../host/path\n", {"memory.max": "12288000\n"}, 12288000),
            ("none", "0::/\n", {"memory.max": "max\n"}, None),
            ("not readable", "", {}, None),
        ):
            root = self.work / "groups" / name
            (root / "proc/self").mkdir(parents=True)
            (root / "proc/self/cgroup").write_text(lines)
            for file, text in files.items():
                at = root / "sys/fs/cgroup" / file
                at.parent.mkdir(parents=True, exist_ok=True)
                at.write_text(text)
            assert memory.of_group(root) == want, name
        assert 0 < memory.available() <= memory.of_machine()

    def test_a_long_text_is_written_in_parts(self):
        size, writer.SHARD_BYTES = writer.SHARD_BYTES, 600 * ROW
        try:
            served = Served(self.work / "long")
        finally:
            writer.SHARD_BYTES = size
        served.step({"a": 1500}, new("a"))
        served.step({"a": 400})
        served.settle()
        assert len(served.shards()) == 1, "it is written before it ends"
        served.end("a")
        got = sum((shard.tensors["model.layers.1.self_attn.q_proj"][0].tolist() for shard in served.shards()), [])
        calls = served.heard["model.layers.1.self_attn.qkv_proj"]
        assert got == calls[0][:1500].tolist() + calls[1][:400].tolist()

    def test_so_many_rows_and_then_none(self):
        served = Served(self.work / "rows", rows=100)
        served.step({"a": 60}, new("a"))
        served.step({"a": 1, "b": 70}, new("b"))  # b's rows are the first
        assert not any(module._forward_pre_hooks for module in served.model.modules())
        served.step({"c": 64}, new("c"))
        served.end("a", "b", "c")
        assert served.recorder.blocks.free == [], "the server has its memory back"
        assert sorted(shard.length for shard in served.shards()) == [40, 60]
        assert "QERA_TAP_ROWS" in served.said.getvalue()

    def test_the_end_of_the_process_writes_what_waits(self):
        served = Served(self.work / "end")
        served.step({"a": 600, "b": 40}, new("a"), new("b"))
        served.close()
        assert sorted(shard.length for shard in served.shards()) == [40, 600]
        assert "640 rows in 2 shards" in served.said.getvalue(), served.said.getvalue()
