"""What the operating system says about the server's processes: CPU, memory, fsyncs.

CPU is user plus system time of the whole process tree from /proc; memory is the proportional set size
(PSS: shared pages count once over all processes), with the resident set where PSS cannot be read.
Calls of fsync and fdatasync are counted by a small preloaded library (`syncshim.c`), which can also
delay each of them; without a C compiler these figures are left out, never guessed.
"""

from __future__ import annotations

import mmap
import os
import platform
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import metadata
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
SHIM_SOURCE = Path(__file__).with_name("syncshim.c")


@dataclass(frozen=True)
class Sample:
    """Counters since the processes began; subtract two for what happened between."""

    cpu_seconds: float = 0.0
    fsyncs: int = 0
    fdatasyncs: int = 0
    sync_seconds: float = 0.0

    @property
    def syncs(self) -> int:
        return self.fsyncs + self.fdatasyncs

    def __sub__(self, earlier: Sample) -> Sample:
        return Sample(*(getattr(self, f.name) - getattr(earlier, f.name) for f in fields(self)))


def tree(root: int) -> list[int]:
    """The process `root` and all its descendants that live."""
    children: dict[int, list[int]] = {}
    for name in (path.name for path in Path("/proc").iterdir()):
        stat = _stat(int(name)) if name.isdigit() else []
        if stat:
            children.setdefault(int(stat[1]), []).append(int(name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def _stat(pid: int) -> list[str]:
    """/proc/PID/stat from the state on (index 0); empty when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text[text.rindex(")") + 2 :].split()


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of the processes, children they waited for included."""
    total = 0
    for pid in pids:
        stat = _stat(pid)
        if stat:
            total += sum(int(stat[field]) for field in (11, 12, 13, 14))
    return total / TICKS


@dataclass(frozen=True)
class Memory:
    """Bytes. `pss` is None where the kernel does not show it to us."""

    rss: int
    pss: int | None

    @property
    def best(self) -> int:
        return self.rss if self.pss is None else self.pss


def memory(pids: list[int]) -> dict[int, Memory]:
    """Per process."""
    found = {}
    for pid in pids:
        stat = _stat(pid)
        if not stat:
            continue
        pss = None
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            rollup = ""
        for line in rollup.splitlines():
            if line.startswith("Pss:"):
                pss = int(line.split()[1]) * 1024
        found[pid] = Memory(int(stat[21]) * PAGE, pss)
    return found


def command(pid: int) -> str:
    """What the process calls itself, for people."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "gone"


@dataclass(frozen=True)
class Probe:
    """Which processes to look at; small and picklable, so the load generator samples at its own edges."""

    pids: tuple[int, ...]
    shim: Path | None = None

    def sample(self) -> Sample:
        fsyncs = fdatasyncs = inside = 0
        if self.shim is not None:
            for path in self.shim.glob("*.counts"):
                with path.open("rb") as file:
                    one, two, nanoseconds = struct.unpack("QQQ", file.read(24))
                fsyncs, fdatasyncs, inside = fsyncs + one, fdatasyncs + two, inside + nanoseconds
        return Sample(cpu_seconds(list(self.pids)), fsyncs, fdatasyncs, inside / 1e9)


class Shim:
    """The compiled library: `environment` for a server's start, one counting folder for each server."""

    def __init__(self, library: Path) -> None:
        self.library = library

    @staticmethod
    def build(folder: Path) -> Shim | None:
        """None where there is no C compiler."""
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None or platform.system() != "Linux":
            return None
        library = folder / "syncshim.so"
        argv = [compiler, "-O2", "-Wall", "-shared", "-fPIC", "-o", str(library), str(SHIM_SOURCE), "-ldl"]
        subprocess.run(argv, check=True)
        return Shim(library)

    def environment(self, counting: Path) -> dict[str, str]:
        counting.mkdir(parents=True, exist_ok=True)
        (counting / "delay").write_bytes(bytes(PAGE))
        return {"LD_PRELOAD": str(self.library), "SYNC_SHIM_DIR": str(counting)}

    @staticmethod
    def set_delay(counting: Path, milliseconds: float) -> None:
        """From now on each fsync and fdatasync sleeps so long first, in processes that run already too."""
        with (counting / "delay").open("r+b") as file, mmap.mmap(file.fileno(), PAGE) as area:
            area[:8] = struct.pack("Q", int(milliseconds * 1000))


def fdatasync_ms(folder: Path, count: int = 200) -> float:
    """The median time of a 4 KiB append and its fdatasync on this disk, in milliseconds."""
    import statistics
    import time

    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(count):
            file.write(bytes(4096))
            file.flush()
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e3


def machine() -> Mapping[str, str]:
    """What the figures were measured on."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    import sqlite3

    libraries = ("pynacl", "cryptography", "aiohttp", "uvloop")
    versions = {name: metadata.version(name) for name in libraries if _installed(name)}
    memory_kb = Path("/proc/meminfo").read_text().split()[1]
    return {
        "cpu": model,
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(memory_kb) / 1048576:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **versions,
    }


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
