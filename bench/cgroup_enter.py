"""How long a process takes into a new cgroup of every hierarchy: moved by another, or through the doors by itself.

sudo python bench/cgroup_enter.py [ROUNDS]
"""

from __future__ import annotations

import os
import statistics
import sys
import time

from argosy.runtime import cgroups
from argosy.runtime.kernel import LinuxKernel


def once(itself: bool, number: int) -> float:
    """Milliseconds from before the process is made until it is in."""
    path = f"/argosy-bench-{os.getpid()}-{number}"
    group = cgroups.manager(path, "x", systemd=False, rootless=False, resources={}, annotations={})
    group.create()
    go, done = os.pipe(), os.pipe()
    time.sleep(0.3)  # the kernel's lock is cheap for a moment after it was taken
    start = time.perf_counter()
    doors, born = (group.doors(), group.dirfd()) if itself else ([], None)
    pid, pidfd = LinuxKernel().clone3(0, born)
    if pid == 0:
        for door in doors:
            os.write(door, b"0")
        os.write(done[1], b"x")
        os.read(go[0], 1)
        os._exit(0)
    if itself:
        group.adopt(pid)
    else:
        group.enter(pid)
    os.read(done[0], 1)
    took = (time.perf_counter() - start) * 1000
    os.write(go[1], b"x")
    os.waitpid(pid, 0)
    for fd in (*go, *done, *doors, pidfd, *([born] if born is not None else [])):
        os.close(fd)
    group.destroy()
    return took


def main() -> None:
    """Alternate the two, and print both medians and their ratio."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    taken: dict[bool, list[float]] = {False: [], True: []}
    for number in range(rounds):
        for itself, times in taken.items():
            times.append(once(itself, number))
    moved, entered = (statistics.median(times) for times in taken.values())
    print(f"moved {moved:.2f} ms, by itself {entered:.2f} ms, ratio {entered / moved:.2f}")


if __name__ == "__main__":
    main()
