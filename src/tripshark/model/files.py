"""A file that packets carried: what it is by its first bytes, and its hashes. Its contents are never kept."""

from __future__ import annotations

from dataclasses import dataclass

from tripshark.model.alert import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedFile:
    """One object that tshark could put together. Its name is the sender's word: hostile."""

    name: str
    source: str  # "HTTP", "SMB", "TFTP", "IMF", "FTP-DATA"
    type: str  # by its first bytes: "ELF program", "gzip archive", "data"
    runs: bool  # a machine or an interpreter can run it
    sha256: str
    md5: str
    bytes: int
    complete: bool
    client: str  # who received it (an upload: who sent it)
    server: str
    uploaded: bool  # the client sent it
    first_ns: int
    frame: int

    def row(self) -> dict[str, Json]:
        """As it stands in the findings."""
        return {
            "name": self.name,
            "source": self.source,
            "type": self.type,
            "sha256": self.sha256,
            "md5": self.md5,
            "bytes": self.bytes,
            "complete": self.complete,
            "client": self.client,
            "server": self.server,
            "first_ns": self.first_ns,
            "frame": self.frame,
            "filter": f"frame.number == {self.frame}",
        }
