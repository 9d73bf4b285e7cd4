"""Who may read what the tap writes, and what else may lie in its folder."""

import os
import pathlib
import stat
import tempfile
import threading

from qera_vllm.folder import Folder, header_of
from served import SECONDS

NOBODY = 65534


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def put(folder):
    header = header_of({"a": ("F32", [1, 1, 1], 4)}, {})
    return folder.put(header, [b"rows"], len(header) + 4)


def in_a_child(function, user=None):
    """What a process of another user's (where this one may become it) says: nothing if it went
    well."""
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        try:
            if user is not None and os.getuid() == 0:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
            function()
        except BaseException as error:
            os.write(writes, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as said:
        text = said.read()
    os.waitpid(child, 0)
    return text


class FolderTests:
    def __init__(self, work):
        self.work = work
        work.mkdir()

    def test_what_users_typed_is_not_for_all_to_read(self):
        for mask in (0o000, 0o022, 0o077):
            path, before = self.work / f"{mask:o}" / "above" / "rows", os.umask(mask)
            try:
                assert put(Folder(path, 2**20))
            finally:
                os.umask(before)
            [shard] = path.glob("*.safetensors")
            modes = [mode(each) for each in (path, path.parent, shard, path / ".tap.lock")]
            assert modes == [0o700, 0o700, 0o640, 0o660], (oct(mask), list(map(oct, modes)))

    def test_a_folder_that_is_there_keeps_its_mode(self):
        path = self.work / "there"
        path.mkdir()
        path.chmod(0o2770)
        assert put(Folder(path, 2**20)) and mode(path) == 0o2770

    def test_two_users_share_a_folder(self):
        with tempfile.TemporaryDirectory() as top:
            os.chmod(top, 0o755)
            path = pathlib.Path(top, "shared")
            path.mkdir()
            if os.getuid() == 0:
                os.chown(path, 0, NOBODY)
            path.chmod(0o2770)
            first = Folder(path, 2**20)
            assert put(first)
            for lock in (0o660, 0o440):  # as the tap makes it; for reading only
                (path / ".tap.lock").chmod(lock)

                def other():
                    assert put(Folder(path, 2**20))

                assert not (said := in_a_child(other, NOBODY)), said
            assert put(first) and len(list(path.glob("*.safetensors"))) == 4
            if os.getuid() == 0:
                (path / ".tap.lock").chmod(0o600)
                said = in_a_child(other, NOBODY)
                assert "another user's" in said and "2770" in said and ".tap.lock" in said, said

    def test_pipes_and_links_are_passed_by(self):
        path = self.work / "pipes"
        path.mkdir()
        os.mkfifo(path / ".tap-x.part")
        kept = self.work / "kept"
        kept.write_text("kept")
        (path / ".tap-y.part").symlink_to(kept)
        made = []
        thread = threading.Thread(target=lambda: made.append(Folder(path, 2**20)), daemon=True)
        thread.start()
        thread.join(SECONDS)
        assert made and put(made[0]), "a pipe hangs the tap"
        assert kept.read_text() == "kept" and (path / ".tap-x.part").is_fifo()

    def test_a_lock_that_is_a_pipe_or_a_link_is_refused(self):
        for name, make in (("pipe", os.mkfifo), ("link", lambda at: os.symlink("/dev/null", at))):
            path = self.work / f"lock-{name}"
            path.mkdir()
            make(path / ".tap.lock")
            try:
                Folder(path, 2**20)
                raise AssertionError(f"a {name} is taken")
            except OSError as error:
                assert ".tap.lock" in str(error), error
