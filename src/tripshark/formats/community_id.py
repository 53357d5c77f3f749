"""The community id of a flow: the key by which Zeek, Suricata, Arkime and Wireshark know the same flow.

Version 1 with seed 0, as its specification says: `1:` and the base64 of a SHA-1 over seed, addresses, protocol
and ports, the smaller end first. ICMP has its type and code for ports: of a question, the type that answers it.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from ipaddress import ip_address
from typing import Final

_PROTOCOLS: Final = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}
_ICMP: Final = {8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15, 10: 9, 9: 10, 17: 18, 18: 17}
_ICMPV6: Final = {
    128: 129,
    129: 128,
    133: 134,
    134: 133,
    135: 136,
    136: 135,
    130: 131,
    131: 130,
    144: 145,
    145: 144,
    139: 140,
    140: 139,
}


def community_id(proto: str, src: str, sport: int, dst: str, dport: int) -> str:
    """Of a flow from `src` to `dst`; for ICMP `sport` is the type and `dport` the code of its first packet.

    "" for a protocol without an id (fragments without their header, GRE, …). Raises ValueError for what is no
    address.
    """
    number = _PROTOCOLS.get(proto)
    if number is None:
        return ""
    one_way = False
    if proto in ("icmp", "icmpv6"):
        answer = (_ICMP if proto == "icmp" else _ICMPV6).get(sport)
        one_way = answer is None
        dport = dport if answer is None else answer
    low, high = (ip_address(src).packed, sport), (ip_address(dst).packed, dport)
    if high < low and not one_way:
        low, high = high, low
    data = struct.pack("!H", 0) + low[0] + high[0] + struct.pack("!BxHH", number, low[1], high[1])
    return "1:" + base64.b64encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()
