"""How much went each way over time, for a picture."""

from __future__ import annotations

from dataclasses import dataclass

from tripshark.errors import BadInput
from tripshark.model.alert import Json
from tripshark.model.reading import Reader

MAX_BINS = 600
_COLUMNS = ("packets_out", "packets_in", "bytes_out", "bytes_in")


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """Counts per bin of `step_ns` from `start_ns` on; all four columns have the same length, ≤ `MAX_BINS`.

    *Out* is what the target's addresses sent. Where the target's addresses are not known, all is *in*.
    """

    start_ns: int = 0
    step_ns: int = 0
    packets_out: tuple[int, ...] = ()
    packets_in: tuple[int, ...] = ()
    bytes_out: tuple[int, ...] = ()
    bytes_in: tuple[int, ...] = ()

    def as_json(self) -> dict[str, Json]:
        """Plain JSON; `from_json` reads it back unchanged."""
        return {
            "start_ns": self.start_ns,
            "step_ns": self.step_ns,
            "packets_out": list(self.packets_out),
            "packets_in": list(self.packets_in),
            "bytes_out": list(self.bytes_out),
            "bytes_in": list(self.bytes_in),
        }

    @classmethod
    def from_json(cls, document: Json) -> Activity:
        """Raises `BadInput`."""
        of = Reader(document, "activity")
        columns = [of.numbers(name, MAX_BINS) for name in _COLUMNS]
        if len({*map(len, columns)}) != 1:
            raise BadInput("the columns differ in length", where="activity")
        out, into, out_bytes, into_bytes = columns
        return cls(
            start_ns=of.number("start_ns"),
            step_ns=of.number("step_ns"),
            packets_out=out,
            packets_in=into,
            bytes_out=out_bytes,
            bytes_in=into_bytes,
        )
