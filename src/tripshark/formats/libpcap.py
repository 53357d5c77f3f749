"""What libpcap itself says: its filter compiler and its filter machine, through ctypes."""

from __future__ import annotations

import ctypes
import functools
import threading
from typing import Any, Final

from tripshark.errors import BadInput, Permanent

_NAMES: Final = ("libpcap.so.0.8", "libpcap.so.1", "libpcap.so")  # Debian's name, everybody's
_DLT: Final = {101: 12}  # link types of files whose number in the library is another: raw IP
_UNKNOWN_NETMASK: Final = 0xFFFF_FFFF
OPTIMISED: Final = 512
"""Longer expressions are taken as they are: the optimiser takes time with the cube of their length, 0.05 s for this."""
_ONE_AT_A_TIME = threading.Lock()  # the compiler became reentrant only in 1.8


class _Instructions(ctypes.Structure):
    """struct bpf_program of pcap/bpf.h."""

    _fields_ = [("count", ctypes.c_uint), ("first", ctypes.c_void_p)]  # type: ignore[mutable-override]  # ctypes means it so


def compile_filter(
    expression: str, linktype: int, snaplen: int, *, optimised: int = OPTIMISED
) -> bytes:
    """The instructions for a filter, 8 bytes each; optimised where it has at most so many characters.

    Raises `BadInput` with the compiler's own words.

    Words that are no part of the language are looked up in DNS: check the expression first.
    """
    library = load()
    code = _Instructions()
    with _ONE_AT_A_TIME:
        handle = library.pcap_open_dead(_DLT.get(linktype, linktype), snaplen)
        try:
            if library.pcap_compile(
                handle,
                ctypes.byref(code),
                expression.encode("ascii"),
                int(len(expression) <= optimised),
                _UNKNOWN_NETMASK,
            ):
                raise BadInput(
                    f"filter does not compile: {library.pcap_geterr(handle).decode(errors='replace')}",
                    where=expression,
                    hint="the language is that of tcpdump: see pcap-filter(7)",
                )
            try:
                return ctypes.string_at(code.first, code.count * 8)
            finally:
                library.pcap_freecode(ctypes.byref(code))
        finally:
            library.pcap_close(handle)


def run_filter(instructions: bytes, data: bytes, length: int) -> int:
    """What libpcap's own machine returns for one packet of `length` bytes of which `data` is there."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    return int(load().bpf_filter(code, data, length, len(data)))


@functools.cache
def load(names: tuple[str, ...] = _NAMES) -> Any:  # noqa: ANN401 - ctypes makes the functions up
    """The library, by the first of these names that there is. Raises `Permanent` when there is none."""
    for name in names:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.pcap_open_dead.restype = ctypes.c_void_p
        library.pcap_open_dead.argtypes = [ctypes.c_int, ctypes.c_int]
        library.pcap_compile.argtypes = [
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_char_p,
            ctypes.c_int,
            ctypes.c_uint32,
        ]
        library.pcap_geterr.restype = ctypes.c_char_p
        library.pcap_geterr.argtypes = [ctypes.c_void_p]
        library.pcap_freecode.argtypes = [ctypes.c_void_p]
        library.pcap_freecode.restype = None
        library.pcap_close.argtypes = [ctypes.c_void_p]
        library.pcap_close.restype = None
        library.bpf_filter.argtypes = [
            ctypes.c_void_p,
            ctypes.c_char_p,
            ctypes.c_uint,
            ctypes.c_uint,
        ]
        library.bpf_filter.restype = ctypes.c_uint
        return library
    raise Permanent(
        "libpcap is not installed", where=", ".join(names), hint="install libpcap0.8 (or libpcap)"
    )
