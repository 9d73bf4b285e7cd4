"""Shards are written past the page cache where the file system takes that, and are the same bytes
everywhere."""

import errno
import os

from qera_vllm.direct import PAGE, STAGED, Staging, is_direct, set_direct

SIZES = (0, 1, PAGE - 1, PAGE, STAGED - 1, STAGED, STAGED + 1, 2 * STAGED + PAGE + 7)


def takes_direct(path):
    """Whether the file system of a file does, asked by other means than the tap's."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DIRECT))
    except OSError:
        return False
    return True


class Writes:
    """Stands in for `os.write` while the `with` block runs. Keeps of each call whether it was
    direct, and its bytes; `before(file, data, is_direct)` may raise, or give other data to
    write."""

    def __init__(self, before=lambda file, data, is_direct: data):
        self.before, self.calls = before, []

    def __enter__(self):
        self.write, os.write = os.write, self.replaced
        return self

    def __exit__(self, *_):
        os.write = self.write

    def replaced(self, file, data):
        direct = is_direct(file)
        written = self.write(file, self.before(file, data, direct))
        self.calls.append((direct, written))
        return written


class DirectTests:
    def __init__(self, work):
        self.work, self.number = work, 0
        work.mkdir()

    def put(self, size, staging=None):
        """The bytes of a file, and those that it should have, of buffers that begin anywhere."""
        self.number += 1
        path, data = self.work / str(self.number), os.urandom(size)
        cuts = sorted({0, min(8, size), min(3 * PAGE + 1, size), size // 2, size})
        file = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.truncate(file, size)
        try:
            (staging or Staging()).write(file, [data[start:stop] for start, stop in zip(cuts, cuts[1:])])
        finally:
            os.close(file)
        return path.read_bytes(), data

    def test_the_bytes_are_those_of_the_buffers(self):
        staging = Staging()
        for size in SIZES:
            found, wanted = self.put(size, staging)
            assert found == wanted, size

    def test_all_but_the_last_part_of_a_page_is_direct(self):
        takes = takes_direct(self.work / "asked")
        with Writes() as writes:
            self.put(STAGED + PAGE + 7)
        assert writes.calls == [(takes, STAGED), (takes, PAGE), (False, 7)], (takes, writes.calls)

    def test_a_file_system_that_refuses_them_at_once(self):
        with open(os.devnull, "wb") as file:
            set_direct(file.fileno(), True)
            assert not is_direct(file.fileno())
            Staging().write(file.fileno(), [b"goes on"])

    def test_a_file_system_that_refuses_them_when_they_are_written(self):
        def refuse(file, data, is_direct):
            if is_direct:
                raise OSError(errno.EINVAL, "Invalid argument")
            return data

        with Writes(refuse) as writes:
            found, wanted = self.put(2 * STAGED + 7)
        assert found == wanted and not any(direct for direct, _ in writes.calls)

    def test_what_is_written_in_parts(self):
        for size in (PAGE, 512, 100):  # direct writes of parts of a sector are refused
            with Writes(lambda file, data, is_direct: data[:size]):
                found, wanted = self.put(5 * PAGE + 7)
            assert found == wanted, size

    def test_other_errors_are_told(self):
        for number in (errno.ENOSPC, errno.EINVAL):

            def fail(file, data, is_direct):
                raise OSError(number, os.strerror(number))

            try:
                with Writes(fail):
                    self.put(PAGE)
                raise AssertionError("an error is passed over")
            except OSError as error:
                assert error.errno == number
