"""What the figures were taken on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from pathlib import Path

import tripshark


def facts(*, how_cpu: str) -> list[tuple[str, str]]:
    return [
        ("taken", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())),
        ("CPU", f"{os.cpu_count()} × {_cpu()}"),
        ("memory", f"{_memory_gib():.0f} GiB"),
        ("kernel", f"{platform.system()} {platform.release()} {platform.machine()}"),
        ("load average before", " ".join(f"{each:.2f}" for each in os.getloadavg())),
        ("CPU time by", how_cpu),
        ("Tripshark", f"{tripshark.__version__}, CPython {platform.python_version()}"),
        *((name, _version(argv)) for name, argv in _TOOLS.items()),
    ]


_TOOLS = {
    "dumpcap, tshark": ["dumpcap", "--version"],
    "tcpdump": ["tcpdump", "--version"],
    "netsniff-ng": ["netsniff-ng", "--version"],
    "iperf3": ["iperf3", "--version"],
}


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)


def _version(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "not there"
    found = re.findall(r"\d+\.\d+(?:\.\d+)*", done.stdout + done.stderr)
    libpcap = re.search(r"libpcap version (\S+)", done.stdout + done.stderr)
    return (found[0] if found else "?") + (f", libpcap {libpcap[1]}" if libpcap else "")
