"""Two endpoints and what went each way."""

from __future__ import annotations

from dataclasses import dataclass, fields

from tripshark.model.alert import Json
from tripshark.model.reading import Reader


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Two endpoints and what went each way; `a` is the target's side where it is known.

    Addresses and ports are those of the *outermost* IP header, which is what the alert, the filter and the
    target's own addresses speak of; `tunnel` names what is carried inside.
    """

    proto: (
        str  # "tcp", "udp", "icmp", "gre", …; "udp fragment" where the ports are in another packet
    )
    a: str  # address
    a_port: int
    b: str
    b_port: int
    packets_ab: int
    packets_ba: int
    bytes_ab: int  # on the wire, link header included
    bytes_ba: int
    first_ns: int
    last_ns: int
    frame: int = 0  # its first packet, as Wireshark numbers them
    opened_by: str = ""  # address that sent the first packet seen
    from_start: bool = False  # TCP: that packet is a SYN
    app: str = ""  # "DNS", "TLSv1.3", …: the highest protocol seen
    tunnel: str = ""  # "vxlan", "gre", …
    named: bool = False  # an alert names this flow
    filter: str = ""  # a Wireshark display filter that shows it
    community_id: str = ""  # version 1, seed 0: the key by which Zeek and Suricata know the flow
    retransmissions: int = 0  # TCP segments that tshark takes for sent again
    resets: int = 0  # TCP segments with RST

    @property
    def packets(self) -> int:
        """Both ways."""
        return self.packets_ab + self.packets_ba

    @property
    def bytes(self) -> int:
        """Both ways."""
        return self.bytes_ab + self.bytes_ba

    def as_json(self) -> dict[str, Json]:
        """Every field under its own name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def from_json(cls, document: Json) -> Conversation:
        """Raises `BadInput`."""
        of = Reader(document, "conversation")
        return cls(
            proto=of.text("proto"),
            a=of.text("a"),
            a_port=of.number("a_port"),
            b=of.text("b"),
            b_port=of.number("b_port"),
            packets_ab=of.number("packets_ab"),
            packets_ba=of.number("packets_ba"),
            bytes_ab=of.number("bytes_ab"),
            bytes_ba=of.number("bytes_ba"),
            first_ns=of.number("first_ns"),
            last_ns=of.number("last_ns"),
            frame=of.number("frame"),
            opened_by=of.text("opened_by"),
            from_start=of.flag("from_start"),
            app=of.text("app"),
            tunnel=of.text("tunnel"),
            named=of.flag("named"),
            filter=of.text("filter"),
            community_id=of.text("community_id"),
            retransmissions=of.number("retransmissions"),
            resets=of.number("resets"),
        )
