"""Which fields tshark is asked for, and how its answer about one packet is decoded.

Every field may be missing, and has one value per occurrence in the packet. In its output (`-T ek`) tshark writes
names with underscores where a field's name has dots.
"""

from __future__ import annotations

from typing import Final

import msgspec

FIELDS: Final = (
    *("frame.number", "frame.time_epoch", "frame.len", "frame.protocols"),
    *("ip.src", "ip.dst", "ip.proto"),
    *("ipv6.src", "ipv6.dst", "ipv6.nxt"),
    *("tcp.srcport", "tcp.dstport", "tcp.flags", "tcp.stream"),
    *("udp.srcport", "udp.dstport", "udp.stream"),
    *("sctp.srcport", "sctp.dstport"),
    *("icmp.type",),
    *("icmpv6.type",),
    *("_ws.col.Protocol",),
    *("dns.id", "dns.flags.response", "dns.flags.rcode", "dns.count.queries"),
    *("dns.count.answers", "dns.count.auth_rr", "dns.count.add_rr", "dns.qry.name"),
    *("dns.qry.type", "dns.resp.name", "dns.resp.type", "dns.a", "dns.aaaa"),
    *("dns.cname",),
    *("tls.handshake.type", "tls.handshake.extensions_server_name"),
    *("tls.handshake.extensions_alpn_str",),
    *("http.host", "http.request.method", "http.request.uri"),
    *("http2.headers.authority", "http2.headers.method", "http2.headers.path"),
    *("ssh.protocol",),
    *("icmp.code",),
    *("icmpv6.code",),
    *("tcp.analysis.retransmission", "tcp.analysis.fast_retransmission"),
    *("tcp.analysis.spurious_retransmission",),
    *("_ws.expert.message", "_ws.expert.group", "_ws.expert.severity"),
    *("tls.handshake.version", "tls.handshake.extensions.supported_version"),
    *("tls.handshake.ciphersuite", "tls.handshake.extension.type"),
    *("tls.handshake.sig_hash_alg", "tls.handshake.sig_hash_alg_len"),
    *("tls.handshake.ja3",),
    *("http.response.code", "http.request_in", "http.user_agent"),
    *("http.content_length_header", "http.transfer_encoding", "http.authorization"),
    *("http.authbasic",),
    *("http2.streamid", "http2.headers.status", "http2.headers.user_agent"),
    *("http2.headers.authorization",),
    *("urlencoded-form.key", "urlencoded-form.value"),
    *("ftp.request.command", "ftp.request.arg"),
    *("pop.request.command", "pop.request.parameter"),
    *("imap.request.username", "imap.request.password"),
    *("smtp.auth.username", "smtp.auth.password", "smtp.auth.username_password"),
    *("smtp.req.command", "smtp.req.parameter"),
    *("telnet.data",),
    *("ldap.name", "ldap.simple"),
    *("mqtt.username", "mqtt.passwd"),
    *("socks.username", "socks.password"),
    *("pgsql.password",),
)

_TOLD: Final = (
    "-T",
    "ek",
    *(word for name in FIELDS for word in ("-e", name)),
    "-r",
    "-",  # the file is descriptor 0: tshark opens nothing by name
)
ARGUMENTS: Final = (
    "-n",  # no names
    "-Q",  # only real errors on stderr
    # A request is one, also if not all of its body was recorded.
    *("-o", "http.desegment_body:FALSE"),
    # Unpacking is quadratic in tshark: 50 kB that become 50 MB would cost it half a minute.
    *("-o", "http.decompress_body:FALSE"),
    *_TOLD,
)
"""What follows `tshark` on the command line."""

WHOLE_HTTP: Final = (
    *("-n", "-Q", "-o", "http.decompress_body:FALSE"),
    *("-Y", "tcp && (http.request || http.response)"),
    *_TOLD,
)
"""The same of HTTP alone, each message where it ends: with the body that followed its head."""

Scalar = str | int | float | bool
Values = list[Scalar]

_SPELT: Final = {
    "column": "_ws_col_Protocol",
    "expert_message": "_ws_expert_message",
    "expert_group": "_ws_expert_group",
    "expert_severity": "_ws_expert_severity",
    "urlencoded_form_key": "urlencoded-form_key",
    "urlencoded_form_value": "urlencoded-form_value",
}


class Layers(msgspec.Struct, gc=False, rename=lambda name: _SPELT.get(name, name)):
    """The fields of one packet, in the order of `FIELDS`."""

    frame_number: Values = []
    frame_time_epoch: Values = []
    frame_len: Values = []
    frame_protocols: Values = []
    ip_src: Values = []
    ip_dst: Values = []
    ip_proto: Values = []
    ipv6_src: Values = []
    ipv6_dst: Values = []
    ipv6_nxt: Values = []
    tcp_srcport: Values = []
    tcp_dstport: Values = []
    tcp_flags: Values = []
    tcp_stream: Values = []
    udp_srcport: Values = []
    udp_dstport: Values = []
    udp_stream: Values = []
    sctp_srcport: Values = []
    sctp_dstport: Values = []
    icmp_type: Values = []
    icmpv6_type: Values = []
    column: Values = []
    dns_id: Values = []
    dns_flags_response: Values = []
    dns_flags_rcode: Values = []
    dns_count_queries: Values = []
    dns_count_answers: Values = []
    dns_count_auth_rr: Values = []
    dns_count_add_rr: Values = []
    dns_qry_name: Values = []
    dns_qry_type: Values = []
    dns_resp_name: Values = []
    dns_resp_type: Values = []
    dns_a: Values = []
    dns_aaaa: Values = []
    dns_cname: Values = []
    tls_handshake_type: Values = []
    tls_handshake_extensions_server_name: Values = []
    tls_handshake_extensions_alpn_str: Values = []
    http_host: Values = []
    http_request_method: Values = []
    http_request_uri: Values = []
    http2_headers_authority: Values = []
    http2_headers_method: Values = []
    http2_headers_path: Values = []
    ssh_protocol: Values = []
    icmp_code: Values = []
    icmpv6_code: Values = []
    tcp_analysis_retransmission: Values = []
    tcp_analysis_fast_retransmission: Values = []
    tcp_analysis_spurious_retransmission: Values = []
    expert_message: Values = []
    expert_group: Values = []
    expert_severity: Values = []
    tls_handshake_version: Values = []
    tls_handshake_extensions_supported_version: Values = []
    tls_handshake_ciphersuite: Values = []
    tls_handshake_extension_type: Values = []
    tls_handshake_sig_hash_alg: Values = []
    tls_handshake_sig_hash_alg_len: Values = []
    tls_handshake_ja3: Values = []
    http_response_code: Values = []
    http_request_in: Values = []
    http_user_agent: Values = []
    http_content_length_header: Values = []
    http_transfer_encoding: Values = []
    http_authorization: Values = []
    http_authbasic: Values = []
    http2_streamid: Values = []
    http2_headers_status: Values = []
    http2_headers_user_agent: Values = []
    http2_headers_authorization: Values = []
    urlencoded_form_key: Values = []
    urlencoded_form_value: Values = []
    ftp_request_command: Values = []
    ftp_request_arg: Values = []
    pop_request_command: Values = []
    pop_request_parameter: Values = []
    imap_request_username: Values = []
    imap_request_password: Values = []
    smtp_auth_username: Values = []
    smtp_auth_password: Values = []
    smtp_auth_username_password: Values = []
    smtp_req_command: Values = []
    smtp_req_parameter: Values = []
    telnet_data: Values = []
    ldap_name: Values = []
    ldap_simple: Values = []
    mqtt_username: Values = []
    mqtt_passwd: Values = []
    socks_username: Values = []
    socks_password: Values = []
    pgsql_password: Values = []


class Line(msgspec.Struct, gc=False):
    """One line of output; `layers` is absent in the index line before each packet."""

    layers: Layers | None = None


_MAX_NUMBER = 1 << 40


def number(value: Scalar) -> int:
    """`53`, `"53"` or `"0x0035"`; never below zero, never so large that sums leave 64 bits. Raises ValueError."""
    if isinstance(value, str) and len(value) <= 24:
        value = int(value, 0)
    if isinstance(value, int) and 0 <= value < _MAX_NUMBER:
        return int(value)  # newer versions write some flags as true and false
    raise ValueError("not a whole number in range")
