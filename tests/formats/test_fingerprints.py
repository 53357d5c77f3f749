"""JA4 and community ids are those that their authors and other tools give for the same flow."""

from __future__ import annotations

import pytest

from tripshark.formats.community_id import community_id
from tripshark.formats.ja4 import grease, ja4
from tripshark.formats.tls_names import cipher_name, version_name

CHROME_SUITES = "1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035"
CHROME_SIGNATURES = "0403,0804,0401,0503,0805,0501,0806,0601"


def numbers(text: str) -> list[int]:
    return [int(each, 16) for each in text.split(",") if each]


def told(
    ciphers: str = CHROME_SUITES,
    extensions: str = "",
    signatures: str = CHROME_SIGNATURES,
    *,
    quic: bool = False,
    version: int = 0x0303,
    versions: str = "0304,0303",
    alpn: str | None = "h2",
) -> str:
    return ja4(
        quic=quic,
        version=version,
        versions=numbers(versions),
        ciphers=numbers(ciphers),
        extensions=numbers(extensions),
        alpn=alpn,
        signatures=numbers(signatures),
    )


PUBLISHED = [
    (  # FoxIO's technical details, with GREASE put back in
        told(
            "0a0a," + CHROME_SUITES,
            "1a1a,0000,0010,0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01",
            versions="4a4a,0304,0303",
        ),
        "t13d1516h2_8daaf6152771_e5627efa2ab1",
    ),
    (  # Chrome 143 as browserleaks.com saw it, in the order sent
        told(
            extensions="002d,0033,0010,fe0d,0017,44cd,0000,000b,000a,002b,ff01,0023,0012,0005,000d,001b"
        ),
        "t13d1516h2_8daaf6152771_d8a2da3f94cd",
    ),
    (  # a QUIC client as Wireshark's own JA4 of it
        told(
            "1302,1301,1303",
            "0033,002b,000d,000a,002d,0000,0010,0039,002a,0029",
            "0403,0804,0401,0503,0805,0501,0201,0807,0808",
            quic=True,
            alpn="h3",
        ),
        "q13d0310h3_55b375c5d22e_43a52939c45c",
    ),
]


@pytest.mark.parametrize(("ours", "published"), PUBLISHED)
def test_ja4_is_what_was_published(ours: str, published: str) -> None:
    """The same from the same hello, whatever the order of its extensions."""
    assert ours == published


def test_ja4_of_odd_hellos() -> None:
    """Nothing offered, no name, an old version, a strange protocol name: each has its place in the format."""
    assert told("", "", "", versions="", version=0x0301, alpn=None) == (
        "t10i000000_000000000000_000000000000"
    )
    assert told(versions="", version=0x7F12)[:3] == "t00"
    assert told(alpn="\x01a")[8:10] == "01"
    assert told(alpn="é") == ""
    assert told(extensions="0005", signatures="").count("_") == 2
    assert grease(0x0A0A)
    assert not grease(0x0A1A)


COMMUNITY = [
    (("tcp", "66.35.250.204", 80, "128.232.110.120", 34855), "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
    (("udp", "8.8.8.8", 53, "192.168.1.52", 54585), "1:d/FP5EW3wiY1vCndhwleRRKHowQ="),
    (("sctp", "192.168.170.8", 7, "192.168.170.56", 7), "1:MP2EtRCAUIZvTw6MxJHLV7N7JDs="),
    (("icmp", "192.168.0.89", 8, "192.168.0.1", 0), "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="),
    (("icmp", "192.168.0.1", 0, "192.168.0.89", 0), "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="),
    (("icmpv6", "fe80::260:97ff:fe07:69ea", 134, "ff02::1", 0), "1:pkvHqCL88/tg1k4cPigmZXUtL00="),
    (
        ("tcp", "2001:470:e5bf:dead:4957:2174:e82c:4887", 63943, "2607:f8b0:400c:c03::1a", 25),
        "1:/qFaeAR+gFe1KYjMzVDsMv+wgU4=",
    ),
    (("gre", "10.0.0.1", 0, "10.0.0.2", 0), ""),
]


@pytest.mark.parametrize(("flow", "expected"), COMMUNITY)
def test_community_ids_are_those_of_the_specification(
    flow: tuple[str, str, int, str, int], expected: str
) -> None:
    """Its own test vectors, in either direction; protocols without an id have none."""
    proto, src, sport, dst, dport = flow
    assert community_id(proto, src, sport, dst, dport) == expected
    if proto in {"tcp", "udp", "sctp"}:
        assert community_id(proto, dst, dport, src, sport) == expected


def test_one_way_icmp_keeps_its_direction() -> None:
    """A message that nothing answers is another flow the other way round."""
    there = community_id("icmp", "10.0.0.2", 3, "10.0.0.1", 1)
    assert there != community_id("icmp", "10.0.0.1", 3, "10.0.0.2", 1)


def test_names_of_versions_and_suites() -> None:
    """Known by name, drafts as drafts, the rest by number."""
    assert (version_name(0x0304), version_name(0x7F1C)) == ("TLS 1.3", "TLS 1.3 (draft 28)")
    assert version_name(0x0999) == "0x0999"
    assert cipher_name(0x1301) == "TLS_AES_128_GCM_SHA256"
    assert cipher_name(0x9999) == "0x9999"
