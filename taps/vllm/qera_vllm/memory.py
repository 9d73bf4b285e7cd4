"""How much memory this process may use: the machine's, or what its control group is limited to."""

import os
import pathlib


def of_machine():
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def of_group(root="/"):
    """The least limit of the process's control groups and those above, of either version; None
    without one."""
    mount, files = pathlib.Path(root, "sys/fs/cgroup"), []
    try:
        lines = pathlib.Path(root, "proc/self/cgroup").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    for line in lines:
        number, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        if number == "0" and not controllers:
            files += upwards(mount, path, "memory.max")
        elif "memory" in controllers.split(","):
            files += upwards(mount / "memory", path, "memory.limit_in_bytes")
    return min(filter(None, map(limit_in, files)), default=None)


def upwards(mount, path, name):
    """The file of a group and of all above it; in a container the path may be the host's, and the
    mount is its own."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return [mount.joinpath(*parts[:count], name) for count in range(len(parts) + 1)]


def limit_in(file):
    """None where there is none ("max") or none can be read."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def available():
    group = of_group()
    return of_machine() if group is None else min(group, of_machine())
