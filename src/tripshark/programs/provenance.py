"""Which machine, kernel, clock and tools a node's evidence names."""

from __future__ import annotations

import ctypes
import platform

import tripshark
from tripshark.formats import libpcap
from tripshark.programs.clock import clock_facts, clock_source
from tripshark.respond.details import Host


def host(node: str) -> Host:
    """As they are now."""
    return Host(
        name=node,
        kernel=f"{platform.system()} {platform.release()} {platform.machine()}",
        clock_source=clock_source(),
        clock=clock_facts(),
        tools={
            "tripshark": tripshark.__version__,
            "python": platform.python_version(),
            "libpcap": _libpcap_version(),
        },
    )


def _libpcap_version() -> str:
    said = libpcap.load().pcap_lib_version
    said.restype = ctypes.c_char_p
    return str(said().decode())
