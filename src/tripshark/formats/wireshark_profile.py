"""Wireshark's profile for our evidence: pods' names shown and nobody asked for them, columns, colours, buttons.

The files are Wireshark's own formats, as 4.0 to 4.6 read them. Names come out of the capture alone: neither a name
server nor a DNS answer within the capture, which an attacker may have sent, gives an address its name.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Final

NAME: Final = "Tripshark"
ALERT: Final = 'systemd_journal.syslog_id == "falco"'
MARK: Final = 'systemd_journal.syslog_id == "tripshark"'

_OURS: Final = f'frame.interface_description contains "pod " || {ALERT}'
_PRIVATE4: Final = "{10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10, 169.254.0.0/16, 127.0.0.0/8, 224.0.0.0/3}"
_PRIVATE6: Final = "{fc00::/7, fe80::/10, ff00::/8, ::1/128}"

COLUMNS: Final[Sequence[tuple[str, str]]] = (
    ("No.", "%m"),
    ("Time", "%t"),
    ("Pod", "%Cus:frame.interface_name:0:R"),
    ("Dir", "%Cus:frame.packet_flags_direction:0:R"),
    ("Source", "%s"),
    ("Destination", "%d"),
    ("Protocol", "%p"),
    ("Length", "%L"),
    ("Info", "%i"),
    ("Comment", "%Cus:frame.comment:0:R"),
)

COLOURS: Final[Sequence[tuple[str, str, str, str]]] = (
    # name, display filter, background, foreground; the first that matches decides
    (
        "Alert: emergency, alert, critical",
        f"{ALERT} && systemd_journal.priority <= 2",
        "c60000",
        "ffffff",
    ),
    ("Alert: error, warning", f"{ALERT} && systemd_journal.priority <= 4", "ff9c00", "000000"),
    ("Alert: notice and below", ALERT, "ffe680", "000000"),
    ("Mark of an analyst", MARK, "b39ddb", "000000"),
    ("Noted packet", "frame.comment", "fff59d", "000000"),
    ("Other journal entries", "systemd_journal", "e6e6e6", "333333"),
    ("Connection refused or broken off", "tcp.flags.reset == 1", "a33b3b", "fff7d6"),
    ("Lost or repeated", "tcp.analysis.flags && !tcp.analysis.window_update", "2b2b2b", "ff9e9e"),
    ("Unreachable", "icmp.type in {3, 4, 5, 11} || icmpv6.type in {1, 2, 3}", "1d2b2b", "9eff6e"),
    ("DNS that failed", "dns.flags.rcode > 0", "ffd5c2", "000000"),
    ("DNS", "dns || mdns", "d9ecff", "000000"),
    (
        "Beginning or end of a connection",
        "tcp.flags.syn == 1 || tcp.flags.fin == 1",
        "c9c9c9",
        "000000",
    ),
    ("TLS", "tls || quic", "e5def5", "000000"),
    ("HTTP", "http || http2", "dff5d3", "000000"),
    ("SSH", "ssh", "d3f5ee", "000000"),
    ("ICMP", "icmp || icmpv6", "fbe3f7", "000000"),
    ("ARP", "arp", "f7f0d7", "000000"),
)

BUTTONS: Final[Sequence[tuple[str, str, str]]] = (
    # label, display filter, what it says
    ("Alerts", ALERT, "Alerts, as rows of the list"),
    ("Marked", f"frame.comment || {MARK}", "Packets with a note, and marks"),
    (
        "Egress",
        f"(ip && !(ip.dst in {_PRIVATE4})) || (ipv6 && !(ipv6.dst in {_PRIVATE6}))",
        "What left private networks",
    ),
    ("New connections", "tcp.flags.syn == 1 && tcp.flags.ack == 0", "Who called whom"),
    ("DNS", "dns", "Names that were asked for"),
    ("DNS failed", "dns.flags.rcode > 0", "Names that do not exist, servers that refused"),
    ("SNI", "tls.handshake.extensions_server_name", "Names of TLS servers, in client hellos"),
    ("HTTP", "http.request", "HTTP requests"),
    ("Metadata", "ip.addr == 169.254.169.254 || ipv6.addr == fd00:ec2::254", "Cloud metadata"),
    (
        "Broken",
        "tcp.flags.reset == 1 || icmp.type == 3 || tcp.analysis.retransmission",
        "What failed",
    ),
)

_PREFERENCES: Final[Sequence[tuple[str, str]]] = (
    ("nameres.network_name", "TRUE"),  # pods' names, out of the capture
    ("nameres.use_external_name_resolver", "FALSE"),  # no name server learns whom we look at
    ("nameres.dns_pkt_addr_resolution", "FALSE"),  # no answer within the capture renames a pod
    ("nameres.transport_name", "FALSE"),
    ("gui.packet_list_show_related", "TRUE"),
    ("gui.packet_list_show_minimap", "TRUE"),
)


def files() -> Mapping[str, str]:
    """Name → content of each file of the profile's folder."""
    return {
        "colorfilters": _colorfilters(),
        "dfilter_buttons": _buttons(),
        "preferences": _preferences(),
        "profile_settings": f"# Wireshark 4.4 and later take this profile for our files by themselves.\n\nauto_switch_filter: {_OURS}\n",
        "recent": _recent(),
    }


def archive() -> bytes:
    """A zip file that Wireshark imports (Configuration Profiles, Import, from zip file); the same bytes every time."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in sorted(files().items()):
            entry = zipfile.ZipInfo(f"{NAME}/{name}", (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            entry.create_system = 3  # the same wherever it is made
            file.writestr(entry, content)
    return made.getvalue()


def _preferences() -> str:
    columns = ",\n".join(f'\t"{title}", "{kind}"' for title, kind in COLUMNS)
    settings = "".join(f"{name}: {value}\n" for name, value in _PREFERENCES)
    return f"# Tripshark: evidence of Kubernetes pods\n\ngui.column.format:\n{columns}\n{settings}"


def _colorfilters() -> str:
    rules = "".join(
        f"@{name}@{filter}@[{_rgb(back)}][{_rgb(front)}]\n"
        for name, filter, back, front in COLOURS
    )
    return f"# Tripshark: alerts first, then what failed, then protocols\n{rules}"


def _rgb(colour: str) -> str:
    """`c60000` as Wireshark's three numbers of 16 bits."""
    return ",".join(str(part * 257) for part in bytes.fromhex(colour))


def _buttons() -> str:
    rows = (("TRUE", label, filter, about) for label, filter, about in BUTTONS)
    return "".join(",".join(f'"{_field(each)}"' for each in row) + "\n" for row in rows)


def _field(text: str) -> str:
    return text.replace("\\", "\\x5c").replace('"', "\\x22")


def _recent() -> str:
    """The capture toolbar is there from the start, and columns have room for what stands in them."""
    widths = {"%m": 60, "%t": 100, "%s": 190, "%d": 190, "%p": 90, "%L": 60, "%i": 520}
    custom = {"Pod": 240, "Dir": 70, "Comment": 260}
    columns = ", ".join(
        f"{kind}, {widths.get(kind, custom.get(title, 100))}" for title, kind in COLUMNS
    )
    return (
        "# Tripshark: how the window looks at first; Wireshark keeps it up to date\n\n"
        f"gui.interface_toolbar_show: {NAME}\n"
        "gui.filter_toolbar_show: TRUE\n"
        f"column.width: {columns}\n"
    )
