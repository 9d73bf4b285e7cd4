"""A third plugin: vLLM's processes wait for each other asleep.

By itself a process that waits looks for its message again and again for up to a second, and takes
any core that is idle meanwhile: CPU seconds that tell of the other load of the machine more than of
the server's work."""

import functools
import os

LONGEST = 50  # milliseconds until it looks again, should a notice be lost


def register():
    if not os.environ.get("QERA_TEST_WAITING"):
        return
    from vllm.distributed.device_communicators.shm_broadcast import SpinCondition

    wait = SpinCondition.wait

    @functools.wraps(wait)
    def asleep(self, timeout_ms=None):
        self.busy_loop_s = 0
        wait(self, LONGEST if timeout_ms is None else min(timeout_ms, LONGEST))

    SpinCondition.wait = asleep
