"""Which words may stand in a filter expression, so that compiling it looks nothing up and always ends.

libpcap takes every word it does not know for a host name and asks DNS for it: an alert could make us tell the
attacker's name server that we are looking. So only words of the language, numbers and addresses pass.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from tripshark.errors import BadInput

_LONGEST: Final = 16_384  # characters

_TOKEN: Final = re.compile(
    r"""
    (?P<space>[ \t\r\n]+)
    | (?P<word>\\?[0-9A-Za-z](?:[0-9A-Za-z._-]*[0-9A-Za-z.])?(?:(?<=[0-9A-Fa-f]):[0-9A-Fa-f:.]+)?
        |::[0-9A-Fa-f:.]*)
    | (?P<sign>&&|\|\||<<|>>|<=|>=|==|!=|[][()!&|^+*/%<>=:-])
    """,
    re.VERBOSE,
)
_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]{1,8}|[0-9]{1,10}")
_NETWORK: Final = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){1,3}")
_MAC: Final = re.compile(r"[0-9A-Fa-f]{1,2}(?::[0-9A-Fa-f]{1,2}){5}")
_RANGE: Final = re.compile(r"[0-9]{1,5}-[0-9]{1,5}")
_SLICE: Final = re.compile(r"[0-9]+:[124]")  # the inside of tcp[0:2]

_LANGUAGE: Final = """
    dst src host net mask port portrange proto link ether wlan addr1 addr2 addr3 addr4 ra ta
    arp rarp ip ip6 icmp icmp6 igmp igrp pim vrrp carp sctp tcp udp ah esp
    atalk aarp decnet lat moprc mopdl iso esis isis clnp stp ipx netbeui
    less greater broadcast multicast byte len length
    vlan mpls pppoed pppoes geneve
    and or not
    icmptype icmpcode icmp-echoreply icmp-unreach icmp-sourcequench icmp-redirect icmp-echo
    icmp-routeradvert icmp-routersolicit icmp-timxceed icmp-paramprob icmp-tstamp icmp-tstampreply
    icmp-ireq icmp-ireqreply icmp-maskreq icmp-maskreply
    icmp6type icmp6code icmp6-destinationunreach icmp6-packettoobig icmp6-timeexceeded
    icmp6-parameterproblem icmp6-echo icmp6-echoreply icmp6-multicastlistenerquery
    icmp6-multicastlistenerreportv1 icmp6-multicastlistenerdone icmp6-routersolicit
    icmp6-routeradvert icmp6-neighborsolicit icmp6-neighboradvert icmp6-redirect
    icmp6-routerrenum icmp6-nodeinformationquery icmp6-nodeinformationresponse
    icmp6-ineighbordiscoverysolicit icmp6-ineighbordiscoveryadvert
    icmp6-multicastlistenerreportv2 icmp6-homeagentdiscoveryrequest
    icmp6-homeagentdiscoveryreply icmp6-mobileprefixsolicit icmp6-mobileprefixadvert
    icmp6-certpathsolicit icmp6-certpathadvert icmp6-multicastrouteradvert
    icmp6-multicastroutersolicit
    tcpflags tcp-fin tcp-syn tcp-rst tcp-push tcp-ack tcp-urg tcp-ece tcp-cwr
"""
"""Words of pcap-filter(7). Left out: `protochain`, whose programs loop, `gateway`, which is always looked up,
`inbound`, `outbound` and `ifindex`, which only a live socket can answer (elsewhere they match nothing), and what
exists only on links that we never record."""

_PROTOCOLS: Final = """
    ip ip6 arp rarp icmp icmp6 igmp igrp pim vrrp ah esp udp tcp sctp
    atalk aarp decnet lat moprc mopdl iso esis isis clnp stp ipx netbeui
"""
"""What may follow `proto \\`."""

_TAGGING: Final = "vlan mpls pppoes geneve 0x8100 0x88a8 0x9100 33024 34984 37120"

_WORDS: Final = frozenset(_LANGUAGE.split())
_AFTER_BACKSLASH: Final = frozenset(_PROTOCOLS.split())
_TAGS: Final = frozenset(_TAGGING.split())


def check(expression: str) -> tuple[str, ...]:
    """The words and signs of an expression. Raises `BadInput` for what would be looked up or does not belong."""
    if len(expression) > _LONGEST:
        raise BadInput(
            f"filter is too long: {len(expression)} characters",
            where=expression[:80] + "…",
            hint=f"at most {_LONGEST} characters",
        )
    tokens: list[str] = []
    at = 0
    while at < len(expression):
        found = _TOKEN.match(expression, at)
        if found is None:
            raise BadInput(
                f"filter has a character that does not belong: {expression[at]!r}",
                where=expression,
                hint="the language is that of tcpdump: see pcap-filter(7)",
            )
        at = found.end()
        if found.lastgroup == "space":
            continue
        if found.lastgroup == "word" and not _is_known(found[0], tokens[-1] if tokens else ""):
            raise BadInput(
                f"filter has an unknown word: {found[0]!r}",
                where=expression,
                hint="names are never looked up: write addresses and port numbers",
            )
        tokens.append(found[0])
    return tuple(tokens)


def speaks_of_tags(tokens: tuple[str, ...]) -> bool:
    """Whether an expression names tags or labels itself, so that it means them and not what is behind them."""
    return not _TAGS.isdisjoint(map(str.lower, tokens))


def _is_known(word: str, before: str) -> bool:
    if word.startswith("\\"):
        return before == "proto" and word[1:] in _AFTER_BACKSLASH
    if before == "portrange":
        return _RANGE.fullmatch(word) is not None
    return (
        word in _WORDS
        or any(form.fullmatch(word) for form in (_NUMBER, _NETWORK, _MAC, _SLICE))
        or _is_ipv6(word)
    )


def _is_ipv6(word: str) -> bool:
    try:
        ipaddress.IPv6Address(word)
    except ValueError:
        return False
    return True
