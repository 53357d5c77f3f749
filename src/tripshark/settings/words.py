"""How sizes, durations, counts and addresses are written in settings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated

from pydantic import BeforeValidator, Field

from tripshark.formats.ruledocuments import snaplen
from tripshark.model.units import bytes_of, count_of, seconds_of


@dataclass(frozen=True, slots=True)
class Unit:
    """Marks a field's unit for people; hung on the types below."""

    name: str


Bytes = Annotated[int, BeforeValidator(bytes_of), Field(ge=0), Unit("bytes")]
Seconds = Annotated[float, BeforeValidator(seconds_of), Field(ge=0), Unit("duration")]
Count = Annotated[int, BeforeValidator(count_of), Field(ge=0), Unit("count")]
Snaplen = Annotated[int, BeforeValidator(snaplen), Unit("bytes per packet")]


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Only this machine can reach it. A name other than localhost is taken to be reachable."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def listen_of(value: object) -> Listen:
    """`127.0.0.1:2803`, `[::]:2803`, `localhost:0`. Raises `ValueError`."""
    if isinstance(value, Listen):
        return value
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:\[\]/]+)):([0-9]{1,5})", str(value))
    if not match or int(match[3]) > 65_535:
        raise ValueError(f"{value!r} is not ADDRESS:PORT, such as 127.0.0.1:2803 or [::1]:2803")
    return Listen(host=match[1] or match[2], port=int(match[3]))


ListenAddress = Annotated[Listen, BeforeValidator(listen_of), Unit("address:port")]
