"""What the machine is, and how much of its processors a tree of processes has used."""

import os
import platform
import time
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def children():
    """Every process's children, by the parent's id."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # It has ended meanwhile.
        found.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    return found


def cpu_seconds(roots):
    """User and system time of these processes and all below them, those that ended included."""
    tree, waiting, ticks = children(), list(roots), 0
    while waiting:
        process = waiting.pop()
        waiting.extend(tree.get(process, []))
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        # utime, stime, and the same of children that were waited for.
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / TICK


def busy_seconds():
    """Processor time that was used on the whole machine so far, or taken from it by its host."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _wait, irq, soft, steal = (int(field) for field in fields[:8])
    return (user + nice + system + irq + soft + steal) / TICK


def write_ms(folder, times=200):
    """The median time of writing eight kilobytes durably, in milliseconds."""
    path = Path(folder) / "write-test"
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.pwrite(file, bytes(8192 * times), 0)
        os.fsync(file)
        took = []
        for number in range(times):
            began = time.perf_counter()
            os.pwrite(file, bytes([number % 256]) * 8192, 8192 * number)
            os.fdatasync(file)
            took.append(time.perf_counter() - began)
    finally:
        os.close(file)
        path.unlink()
    return sorted(took)[times // 2] * 1000


def describe():
    """One line about processor, memory and system."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    release = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    return f"{os.cpu_count()} × {model}, {memory:.0f} GB, {release}, Linux {platform.release()}"
