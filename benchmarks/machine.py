"""The machine that a benchmark runs on: its name and speed, its disk, its cores, and the CPU that processes took."""

import os
import platform
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

_TICK = os.sysconf("SC_CLK_TCK")


def header(*packages: str) -> str:
    """Return a line that says what was measured on: processor, cores, system, Python and the packages' versions."""
    found = []
    for name in packages:
        with suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    parts = [_processor(), f"{len(os.sched_getaffinity(0))} cores", f"{platform.system()} {platform.release()}"]
    return ", ".join([*parts, f"Python {platform.python_version()}", *found])


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def cores() -> tuple[set[int], set[int]]:
    """Return the core of what is measured, and those of the load: apart where there is more than one."""
    first, *others = sorted(os.sched_getaffinity(0))
    return {first}, set(others) or {first}


def cpu_seconds(pid: int) -> float:
    """Return the CPU that a process and all that it has started took so far: user and system, in seconds.

    What a child took that has ended counts, if its parent has waited for it. The kernel's clock is read, which
    ticks a hundred times a second on most machines.
    """
    ticks = 0
    for each in tree(pid):
        with suppress(OSError):
            ticks += sum(map(int, _stat(each)[11:15]))
    return ticks / _TICK


def thread_seconds(pid: int) -> tuple[float, float]:
    """Return the CPU that a process's main thread took so far, and that of its other threads, in seconds."""
    main, others = 0, 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            nanoseconds = int((task / "schedstat").read_text().split()[0])
            if task.name == str(pid):
                main += nanoseconds
            else:
                others += nanoseconds
    return main / 1e9, others / 1e9


def parent(pid: int) -> int:
    """Return the process that started another one."""
    return int(_stat(pid)[1])


def _stat(pid: int) -> list[str]:
    """Return what /proc says of a process, from its state on: a name may hold anything, blanks too."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def tree(pid: int) -> list[int]:
    """Return a process and all that it has started, and they."""
    found = [pid]
    for each in found:
        for task in Path(f"/proc/{each}/task").glob("*/children"):
            with suppress(OSError):
                found += map(int, task.read_text().split())
    return found


def fsync_ms(folder: Path) -> float:
    """Return the median time of writing 4 kB to a file in a folder and having it on the disk, in milliseconds."""
    times = []
    with (folder / "probe").open("wb") as file:
        for _ in range(50):
            file.write(b"x" * 4096)
            file.flush()
            started = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - started)
    return median(times) * 1000
