"""tshark's lines are read as they are meant, for every protocol we tell of, or refused as bad input."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripshark.errors import BadInput
from tripshark.formats import tshark
from tripshark.formats.tshark import (
    Chosen,
    DnsMessage,
    Expert,
    Frame,
    Hello,
    Login,
    Request,
    Response,
    decode,
)
from tripshark.formats.tshark_fields import Layers

POD, PEER = "10.0.0.1", "10.0.0.2"


def line(protocols: str = "eth:ethertype:ip:tcp", **layers: list[object]) -> bytes:
    """One line as `-T ek` writes it; names with dots written as underscores."""
    whole: dict[str, list[object]] = {
        "frame_number": ["7"],
        "frame_time_epoch": ["1790000000.000340563"],
        "frame_len": ["76"],
        "frame_protocols": [protocols],
        "ip_src": [POD],
        "ip_dst": [PEER],
        "ip_proto": ["6"],
        "_ws_col_Protocol": ["TCP"],
        **layers,
    }
    return json.dumps({"timestamp": "1790000000000", "layers": whole}).encode()


def read(protocols: str = "eth:ethertype:ip:tcp", **layers: list[object]) -> Frame:
    frame = decode(line(protocols, **layers))
    assert frame is not None
    return frame


def test_a_tcp_packet_is_read_whole() -> None:
    """Number, time to the nanosecond, length, both ends, stream and flags."""
    frame = read(
        tcp_srcport=["41000"], tcp_dstport=["4444"], tcp_flags=["0x0002"], tcp_stream=["3"]
    )
    assert frame == Frame(
        number=7,
        time_ns=1_790_000_000_000_340_563,
        length=76,
        is_packet=True,
        src=POD,
        dst=PEER,
        transport="tcp",
        sport=41000,
        dport=4444,
        stream=3,
        tcp_flags=2,
        protocol="TCP",
    )
    assert frame.opens
    assert not read(tcp_flags=["0x0012"]).opens


@pytest.mark.parametrize(
    "between", [b"", b"  ", b'{"index":{"_index":"x"}}', b'{"timestamp":"1"}']
)
def test_lines_between_packets_are_passed_over(between: bytes) -> None:
    """Index lines and empty lines are no packets and no errors."""
    assert decode(between) is None


BAD = [
    b"{",
    b"[]",
    b'{"layers": 7}',
    b'{"layers": {}}',
    b'{"layers": {"frame_number": "7"}}',
    b'{"layers": {"frame_number": [[]]}}',
    b'{"layers": {"frame_number": ["x"], "frame_time_epoch": ["1.0"]}}',
    b"[" * 100_000,
    line(frame_number=["0x" + "f" * 40]),
    line(frame_number=[1.5]),
    line(frame_time_epoch=["-1.0"]),
    line(frame_time_epoch=["9999999999.0"]),
    line(frame_time_epoch=["2026-13-01T00:00:00Z"]),
    line(ip_src=["here"]),
    line("eth:ipv6:tcp", ip_src=[], ip_dst=[], ipv6_src=["fe80::1%eth0"], ipv6_dst=["fe80::2"]),
    line(tcp_srcport=["http"]),
    line("eth:ip:udp:dns", dns_id=["?"]),
]


@pytest.mark.parametrize("bad", BAD)
def test_anything_else_is_bad_input(bad: bytes) -> None:
    """The one documented error, which names the line."""
    with pytest.raises(BadInput) as problem:
        decode(bad)
    assert problem.value.where


@given(data=st.binary() | st.binary().map(lambda more: line()[:-40] + more))
def test_any_bytes_are_a_frame_or_bad_input(data: bytes) -> None:
    """No other error, whatever comes."""
    try:
        decode(data)
    except BadInput:
        return


VALUES = st.lists(st.text() | st.integers() | st.floats() | st.booleans(), max_size=4)
LAYERS = sorted(name for name in Layers.__struct_encode_fields__)


@given(layers=st.dictionaries(st.sampled_from(LAYERS), VALUES, max_size=20))
def test_any_values_are_a_frame_or_bad_input(layers: dict[str, list[object]]) -> None:
    """Fields in every combination and with every value: never another error."""
    try:
        decode(line("eth:ip:udp:dns:tls:http", **layers))
    except BadInput:
        return


TIMES = [
    ("1790000000", 1_790_000_000_000_000_000),
    ("1790000000.5", 1_790_000_000_500_000_000),
    ("1790000000.0003405639", 1_790_000_000_000_340_563),
    ("2026-09-21T14:13:20.000340563Z", 1_790_000_000_000_340_563),
    ("2026-09-21T14:13:20Z", 1_790_000_000_000_000_000),
]


@pytest.mark.parametrize(("text", "expected"), TIMES)
def test_times_of_all_versions_are_read(text: str, expected: int) -> None:
    """Seconds since 1970, or ISO 8601 as newer versions write."""
    assert read(frame_time_epoch=[text]).time_ns == expected


@pytest.mark.parametrize("protocols", ["systemd_journal", "sysdig", "pcapng"])
def test_rows_that_are_no_packets_are_marked(protocols: str) -> None:
    """Alert rows have a number and a time, and no address."""
    frame = read(protocols)
    assert (frame.is_packet, frame.number, frame.src) == (False, 7, "")


def test_a_frame_without_protocols_is_no_packet() -> None:
    """Nothing dissected it: nothing is claimed."""
    assert not read(frame_protocols=[], frame_len=[], _ws_col_Protocol=[]).is_packet


@pytest.mark.parametrize("protocols", ["eth:ethertype:arp", "eth:ethertype:ip:_ws.short"])
def test_without_an_ip_header_there_are_no_ends(protocols: str) -> None:
    """ARP, or an IP header cut short: a packet that belongs to no conversation."""
    frame = read(protocols, ip_src=[], ip_dst=[])
    assert (frame.is_packet, frame.src, frame.transport) == (True, "", "")


ENDS = [
    ("eth:ethertype:ip:udp:dns", {"udp_srcport": [1], "udp_dstport": [53], "udp_stream": [0]}, ("udp", 1, 53, 0)),
    ("eth:ethertype:ip:sctp", {"sctp_srcport": ["1"], "sctp_dstport": ["2"]}, ("sctp", 1, 2, -1)),
    ("eth:ethertype:ip:tcp", {}, ("tcp", 0, 0, -1)),
    ("eth:ethertype:ip:esp", {}, ("esp", 0, 0, -1)),
    ("eth:ethertype:ip:data", {"ip_proto": ["17"]}, ("udp fragment", 0, 0, -1)),
    ("eth:ethertype:ip", {"ip_proto": []}, ("ip protocol -1", 0, 0, -1)),
    ("eth:ethertype:ip:data", {"ip_proto": ["253"]}, ("ip protocol 253", 0, 0, -1)),
]  # fmt: skip


@pytest.mark.parametrize(("protocols", "layers", "expected"), ENDS)
def test_transport_and_ports_are_those_of_the_outer_header(
    protocols: str, layers: dict[str, list[object]], expected: tuple[str, int, int, int]
) -> None:
    """Each transport has its own fields; a fragment without its header is named as one."""
    frame = read(protocols, **layers)
    assert (frame.transport, frame.sport, frame.dport, frame.stream) == expected


def test_ipv6_and_its_extension_headers() -> None:
    """Addresses are canonical, and extension headers are passed over."""
    frame = read(
        "eth:ethertype:ipv6:ipv6.hopopts:icmpv6",
        ipv6_src=["FD00:0::1"],
        ipv6_dst=["ff02::1"],
        ipv6_nxt=["0"],
        icmpv6_type=["143"],
    )
    assert (frame.src, frame.dst, frame.transport, frame.icmp_type) == (
        "fd00::1", "ff02::1", "icmpv6", 143,
    )  # fmt: skip


TUNNELS = [
    ("eth:ethertype:ip:udp:vxlan:eth:ethertype:ip:tcp", "udp", "vxlan"),
    ("eth:ethertype:ip:gre:ip:tcp", "gre", "gre"),
    ("eth:ethertype:ip:gre:erspan:eth:llc:cdp", "gre", ""),
    ("eth:ethertype:ip:ipv6:tcp", "ipv6", "ipv6"),
    ("eth:ethertype:ip:ip:tcp", "ip", "ip"),
    ("eth:ethertype:ip:icmp:ip:udp:dns", "icmp", ""),
    ("eth:ethertype:ip:udp:ip:tcp", "udp", "ip"),
]


@pytest.mark.parametrize(("protocols", "transport", "tunnel"), TUNNELS)
def test_tunnels_are_named_and_told_by_their_outer_header(
    protocols: str, transport: str, tunnel: str
) -> None:
    """The first address of several is the outer one; a quote in an ICMP error is no tunnel."""
    frame = read(protocols, ip_src=[POD, "192.0.2.1"], ip_dst=[PEER, "192.0.2.2"])
    assert (frame.src, frame.dst) == (POD, PEER)
    assert (frame.transport, frame.tunnel) == (transport, tunnel)


def dns(**layers: list[object]) -> tuple[DnsMessage, ...]:
    base: dict[str, list[object]] = {
        "dns_id": ["0x0007"],
        "dns_flags_response": ["1"],
        "dns_flags_rcode": ["0"],
        "dns_count_queries": ["1"],
        "dns_count_answers": ["2"],
        "dns_count_auth_rr": ["0"],
        "dns_count_add_rr": ["1"],
        "dns_qry_name": ["a.example"],
        "dns_qry_type": ["1"],
        "dns_resp_name": ["a.example", "b.example", "glue.example"],
        "dns_resp_type": ["5", "1", "1"],
        "dns_cname": ["b.example"],
        "dns_a": [PEER, "192.0.2.1"],
    }
    return read("eth:ethertype:ip:udp:dns", **{**base, **layers}).dns


def test_answers_keep_their_owners_and_glue_is_left_out() -> None:
    """A, AAAA and CNAME values go to the record they stand in; only the answer section counts."""
    (message,) = dns()
    assert message == DnsMessage(
        7,
        True,
        0,
        (("a.example", 1),),
        (("a.example", 5, "b.example"), ("b.example", 1, PEER)),
    )
    (six,) = dns(
        dns_resp_name=["a", "b", "c"],
        dns_resp_type=["28", "6", "41"],
        dns_aaaa=["fd00::1"],
        dns_a=[],
        dns_cname=[],
    )
    assert six.answers == (("a", 28, "fd00::1"), ("b", 6, ""))


UNASSIGNABLE: list[dict[str, list[object]]] = [
    {"dns_a": [PEER]},  # a value is missing
    {"dns_a": [PEER, PEER, PEER]},  # one too many
    {"dns_resp_name": ["a.example"]},  # fewer owners than types
    {"dns_count_answers": ["40"]},  # a lie
    {"dns_count_add_rr": ["0"]},
]


@pytest.mark.parametrize("change", UNASSIGNABLE)
def test_answers_that_do_not_add_up_are_dropped(change: dict[str, list[object]]) -> None:
    """The question stays; nothing is concluded from what cannot be assigned."""
    (message,) = dns(**change)
    assert message.questions == (("a.example", 1),)
    assert message.answers == ()


def test_several_messages_in_one_packet_are_told_apart() -> None:
    """Two messages in one TCP segment, dealt out by their counters; booleans as newer versions write them."""
    first, second = dns(
        dns_id=["1", "2"],
        dns_flags_response=[False, True],
        dns_flags_rcode=["3"],
        dns_count_queries=["1", "1"],
        dns_count_answers=["0", "1"],
        dns_count_auth_rr=["0", "0"],
        dns_count_add_rr=["0"],
        dns_qry_name=["a.example", "b.example"],
        dns_qry_type=["1", "28"],
        dns_resp_name=["b.example"],
        dns_resp_type=["1"],
        dns_cname=[],
        dns_a=[PEER],
    )
    assert (first.id, first.response, first.questions) == (1, False, (("a.example", 1),))
    assert (second.id, second.response) == (2, True)
    assert second.questions == (("b.example", 28),)
    assert second.answers == (("b.example", 1, PEER),)


def test_what_an_icmp_error_quotes_was_not_said() -> None:
    """A quoted question, greeting or request is only repeated by the network."""
    frame = read(
        "eth:ethertype:ip:icmp:ip:udp:dns",
        icmp_type=["3"],
        dns_id=["1"],
        dns_qry_name=["a"],
        dns_qry_type=["1"],
        tls_handshake_type=["1"],
        http_host=["h"],
        ssh_protocol=["SSH-2.0-x"],
    )
    assert frame.icmp_type == 3
    assert (frame.dns, frame.hello, frame.requests, frame.ssh) == ((), None, (), "")


def test_a_client_hello_is_read() -> None:
    """SNI and ALPN of type 1; other handshake messages are none of our business."""
    sni: dict[str, list[object]] = {
        "tls_handshake_extensions_server_name": ["a.example"],
        "tls_handshake_extensions_alpn_str": ["h2", "http/1.1"],
    }
    assert read(tls_handshake_type=["1"], **sni).hello == Hello(("a.example",), ("h2", "http/1.1"))
    assert read(tls_handshake_type=["2"], **sni).hello is None


REQUESTS: list[tuple[dict[str, list[object]], tuple[Request, ...]]] = [
    ({}, ()),
    (
        {"http_host": ["h"], "http_request_method": ["GET"], "http_request_uri": ["/"]},
        (Request("h", "GET", "/"),),
    ),
    ({"http_host": ["h"]}, (Request("h", "", ""),)),
    (  # pipelined, one without a host: which one is not known
        {
            "http_host": ["h"],
            "http_request_method": ["GET", "PUT"],
            "http_request_uri": ["/", "/x"],
        },
        (Request("", "GET", "/"), Request("", "PUT", "/x")),
    ),
    (
        {
            "http2_headers_authority": ["h"],
            "http2_headers_method": ["POST"],
            "http2_headers_path": ["/p"],
        },
        (Request("h", "POST", "/p", version=2),),
    ),
]


@pytest.mark.parametrize(("layers", "expected"), REQUESTS)
def test_requests_of_http_1_and_2_are_read(
    layers: dict[str, list[object]], expected: tuple[Request, ...]
) -> None:
    """A host is claimed only where it surely belongs to the request."""
    assert read(**layers).requests == expected


def test_an_ssh_banner_is_read() -> None:
    """As it came: it is made printable by whoever shows it."""
    assert read(ssh_protocol=["SSH-2.0-x\x1b"]).ssh == "SSH-2.0-x\x1b"


def test_bytes_that_are_not_utf8_do_not_cost_the_packet() -> None:
    """They become replacement characters."""
    frame = decode(line(ssh_protocol=["SSH-?"]).replace(b"SSH-?", b"SSH-\xff"))
    assert frame is not None
    assert frame.ssh == "SSH-\ufffd"


VERSIONS = [
    (b"TShark (Wireshark) 4.0.17 (Git v4.0.17 packaged as 4.0.17-0+deb12u3).\n\nCopyright", "TShark 4.0.17"),
    (b"TShark 4.6.9.\n", "TShark 4.6.9."),
]  # fmt: skip


@pytest.mark.parametrize(("output", "expected"), VERSIONS)
def test_the_version_is_read(output: bytes, expected: str) -> None:
    """With and without the package's own words."""
    assert tshark.version(output).rstrip(".") == expected.rstrip(".")


@pytest.mark.parametrize("output", [b"", b"GNU cat 9", b"\xff" * 300])
def test_another_program_has_no_tshark_version(output: bytes) -> None:
    """Refused, so that nothing else is run in tshark's place."""
    with pytest.raises(BadInput):
        tshark.version(output)


def test_a_complaint_is_one_line_without_the_usual_noise() -> None:
    """Running as root and an unreadable Lua script are as we want them."""
    said = (
        b'Running as user "root" and group "root". This could be dangerous.\n'
        b'tshark: You don\'t have permission to read the file "/usr/share/wireshark/init.lua".\n\n'
        b"tshark: The file appears to have been cut short.\n  (really)\n"
    )
    assert tshark.complaint(said) == "The file appears to have been cut short. (really)"
    assert len(tshark.complaint(b"x" * 9_999)) == 300
    assert tshark.complaint(b"") == ""


def test_tshark_is_told_to_open_nothing_by_name() -> None:
    """The file is standard input, and every field asked for is read."""
    arguments = tshark.ARGUMENTS
    assert arguments[-2:] == ("-r", "-")
    asked = {each.replace(".", "_") for each in arguments[arguments.index("-e") + 1 : -2 : 2]}
    assert asked == set(LAYERS)


def hello(**more: list[object]) -> Hello | None:
    layers: dict[str, list[object]] = {
        "tls_handshake_type": ["1"],
        "tls_handshake_version": ["0x0303"],
        "tls_handshake_ciphersuite": ["0x1301", "0x1302", "0x1303"],
        "tls_handshake_extension_type": ["0", "13", "50"],
        "tls_handshake_sig_hash_alg": ["0x0403", "0x0804", "0x0401"],
        "tls_handshake_sig_hash_alg_len": ["4", "2"],
        "tls_handshake_ja3": ["ab" * 16],
    }
    return read("eth:ip:udp:quic:tls", **{"udp_srcport": ["1"], **layers, **more}).hello


def test_fingerprints_are_told_of_a_lone_hello() -> None:
    """JA3 as tshark says it, JA4 ours, with the signatures of the right extension; QUIC has its own letter."""
    found = hello()
    assert found is not None
    assert found.ja3 == "ab" * 16
    assert found.ja4.startswith("q12d0303")
    only = hello(
        tls_handshake_extension_type=["0", "13", "50"],
        tls_handshake_sig_hash_alg=["0x0403", "0x0804", "0x0999"],
    )
    assert only is not None
    assert only.ja4 == found.ja4
    swapped = hello(tls_handshake_extension_type=["0", "50", "13"])
    assert swapped is not None
    assert swapped.ja4 != found.ja4


def test_fingerprints_are_not_guessed() -> None:
    """Two messages in a packet, lengths that do not add up, no version, an odd JA3: then there is none."""
    for odd in (
        {"tls_handshake_type": ["1", "1"]},
        {"tls_handshake_sig_hash_alg_len": ["4"]},
        {"tls_handshake_sig_hash_alg_len": ["4", "4"]},
        {"tls_handshake_version": []},
    ):
        found = hello(**odd)  # type: ignore[arg-type]
        assert found is not None
        assert found.ja4 == ""
    strange = hello(tls_handshake_ja3=["<script>"])
    assert strange is not None
    assert strange.ja3 == ""
    bare = hello(
        tls_handshake_extension_type=["0", "50"],
        tls_handshake_sig_hash_alg=["0x0403"],
        tls_handshake_sig_hash_alg_len=["2"],
    )
    assert bare is not None
    assert bare.ja4.endswith("_" + bare.ja4.rpartition("_")[2])


CHOICES: list[tuple[dict[str, list[object]], Chosen | None]] = [
    (
        {
            "tls_handshake_type": ["2", "11"],
            "tls_handshake_version": ["0x0303"],
            "tls_handshake_ciphersuite": ["0xc02f"],
        },
        Chosen("TLS 1.2", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
    ),
    (
        {
            "tls_handshake_type": ["2"],
            "tls_handshake_version": ["0x0303"],
            "tls_handshake_extensions_supported_version": ["0x0304"],
            "tls_handshake_ciphersuite": ["0x1301"],
        },
        Chosen("TLS 1.3", "TLS_AES_128_GCM_SHA256"),
    ),
    ({"tls_handshake_type": ["2", "2"]}, None),
    ({"tls_handshake_type": ["11"]}, None),
    ({"tls_handshake_type": ["2"], "tls_handshake_version": ["0x0303"]}, None),
]


@pytest.mark.parametrize(("layers", "expected"), CHOICES)
def test_what_a_server_chose(layers: dict[str, list[object]], expected: Chosen | None) -> None:
    """Version and suite of the one server hello in a packet."""
    assert read("eth:ip:tcp:tls", **layers).chosen == expected


LOGINS: list[tuple[dict[str, list[object]], tuple[Login, ...]]] = [
    ({"http_authbasic": ["u:pass:word"]}, (Login("HTTP basic", "u", 9),)),
    ({"http_authorization": ["Bearer abcdef", "Digest x"]}, (Login("HTTP bearer", "", 6),)),
    (
        {"http2_headers_authorization": ["Bearer abc", "basic dTpw", "Basic %%", "Basic dTp"]},
        (Login("HTTP bearer", "", 3), Login("HTTP basic", "u", 1)),
    ),
    (
        {
            "urlencoded-form_key": ["Username", "password", "pwd"],
            "urlencoded-form_value": ["u", "hunter2", ""],
        },
        (Login("HTTP form", "u", 7),),
    ),
    ({"urlencoded-form_key": ["password"]}, ()),
    (
        {"ftp_request_command": ["USER", "PASS", "QUIT"], "ftp_request_arg": ["u", "secret", ""]},
        (Login("FTP", "u", None), Login("FTP", None, 6)),
    ),
    ({"ftp_request_command": ["USER", "PASS"], "ftp_request_arg": ["u"]}, ()),
    (
        {"pop_request_command": ["PASS"], "pop_request_parameter": ["secret"]},
        (Login("POP3", None, 6),),
    ),
    (
        {"imap_request_username": ["u"], "imap_request_password": ["pw"]},
        (Login("IMAP", "u", 2),),
    ),
    (
        {"smtp_auth_username": ["dXNlcg=="], "smtp_auth_password": ["cGFzcw=="]},
        (Login("SMTP", "user", None), Login("SMTP", None, 4)),
    ),
    ({"smtp_auth_password": ["not base64!"]}, (Login("SMTP", None, 11),)),
    ({"smtp_auth_username_password": ["AHUAcHc="]}, (Login("SMTP", "u", 2),)),
    ({"ldap_name": ["cn=admin"], "ldap_simple": ["pw"]}, (Login("LDAP", "cn=admin", 2),)),
    ({"ldap_name": [""], "ldap_simple": [""]}, ()),
    ({"mqtt_username": ["u"], "mqtt_passwd": ["pw"]}, (Login("MQTT", "u", 2),)),
    ({"socks_username": ["u"], "socks_password": ["pw"]}, (Login("SOCKS", "u", 2),)),
    ({"pgsql_password": ["pw"]}, (Login("PostgreSQL", "", 2),)),
    ({"pgsql_password": ["md5" + "a" * 32]}, ()),
]


@pytest.mark.parametrize(("layers", "expected"), LOGINS)
def test_of_a_secret_only_the_length_is_read(
    layers: dict[str, list[object]], expected: tuple[Login, ...]
) -> None:
    """Every protocol's way of saying who one is; what is said halfway is not believed."""
    assert read("eth:ip:tcp:x", **layers).logins == expected


def test_logins_of_one_packet_are_bounded() -> None:
    """A packet may repeat a header as often as it likes."""
    assert len(read("eth:ip:tcp:http", http_authbasic=["u:p"] * 60).logins) == 16


def test_responses_are_matched_only_where_it_is_certain() -> None:
    """HTTP/1 by tshark's reference to the request, HTTP/2 by the one stream of the packet."""
    one = read("eth:ip:tcp:http", http_response_code=["200"], http_request_in=["4"])
    assert one.responses == (Response(200, 4),)
    assert read("eth:ip:tcp:http", http_response_code=["200", "404"]).responses == ()
    two = read("eth:ip:tcp:http2", http2_headers_status=["204"], http2_streamid=["3"])
    assert two.responses == (Response(204, 0, 3),)
    many = read("eth:ip:tcp:http2", http2_headers_status=["204"], http2_streamid=["3", "5"])
    assert many.responses == ()


def test_tsharks_own_remarks_are_read() -> None:
    """Notes and worse with their group; chats, comments and what HTTP makes of half a body are not."""
    layers: dict[str, list[object]] = {
        "_ws_expert_severity": ["2097152", "8388608", "6291456"],
        "_ws_expert_group": ["33554432", "117440512", "33554432"],
        "_ws_expert_message": ["GET /?token=x", "Malformed", "Out-Of-Order"],
    }
    found = read("eth:ip:tcp:ssh", **layers).experts
    assert found == (
        Expert("error", "Malformed", "Malformed"),
        Expert("warning", "Sequence", "Out-Of-Order"),
    )
    assert read("eth:ip:tcp:http", **layers).experts == found[1:]
    assert read("eth:ip:tcp", **{**layers, "_ws_expert_group": ["1"]}).experts == ()


def test_segments_sent_again_and_nested_packets_are_marked() -> None:
    """By tshark's analysis of TCP; a tunnel has a second IP header."""
    assert read(tcp_analysis_retransmission=["1"]).again
    assert read(tcp_analysis_spurious_retransmission=["1"]).again
    assert not read("eth:ip:udp", tcp_analysis_fast_retransmission=["1"]).again
    assert read("eth:ip:gre:ip:tcp").nested
    assert not read().nested


CARRIERS: list[tuple[str, dict[str, list[object]], str]] = [
    ("eth:ip:tcp:http", {"http_content_length_header": ["12"]}, "HTTP"),
    ("eth:ip:tcp:http", {"http_transfer_encoding": ["chunked"]}, "HTTP"),
    ("eth:ip:tcp:http", {"http_content_length_header": ["0"]}, ""),
    ("eth:ip:udp:tftp", {}, "TFTP"),
    ("eth:ip:tcp:nbss:smb2", {}, "SMB"),
    ("eth:ip:tcp", {}, ""),
]


@pytest.mark.parametrize(("protocols", "layers", "expected"), CARRIERS)
def test_packets_that_may_carry_a_file_say_so(
    protocols: str, layers: dict[str, list[object]], expected: str
) -> None:
    """HTTP only with a body."""
    assert read(protocols, **layers).carries == expected


def test_what_is_typed_is_read() -> None:
    """Telnet's text, joined."""
    assert read("eth:ip:tcp:telnet", telnet_data=["a", "b"]).typed == "ab"
