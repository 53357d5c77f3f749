"""What a technique of MITRE ATT&CK is called, and which tactics it serves.

Names, ids and tactics are those of ATT&CK for Enterprise, version 16 (The MITRE Corporation allows their use for any
purpose). Here are the techniques that packets, or the tags of Falco's rules, can speak of; any other keeps its id.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

_TECHNIQUE = re.compile(r"T\d{4}(?:\.\d{3})?", re.ASCII)

TACTICS: Final[Mapping[str, str]] = {
    "TA0043": "Reconnaissance",
    "TA0042": "Resource Development",
    "TA0001": "Initial Access",
    "TA0002": "Execution",
    "TA0003": "Persistence",
    "TA0004": "Privilege Escalation",
    "TA0005": "Defense Evasion",
    "TA0006": "Credential Access",
    "TA0007": "Discovery",
    "TA0008": "Lateral Movement",
    "TA0009": "Collection",
    "TA0011": "Command and Control",
    "TA0010": "Exfiltration",
    "TA0040": "Impact",
}

_NAMES: Final[Mapping[str, tuple[str, str]]] = {  # id: (name, tactics)
    "T1001": ("Data Obfuscation", "TA0011"),
    "T1005": ("Data from Local System", "TA0009"),
    "T1008": ("Fallback Channels", "TA0011"),
    "T1011": ("Exfiltration Over Other Network Medium", "TA0010"),
    "T1016": ("System Network Configuration Discovery", "TA0007"),
    "T1018": ("Remote System Discovery", "TA0007"),
    "T1020": ("Automated Exfiltration", "TA0010"),
    "T1021": ("Remote Services", "TA0008"),
    "T1021.002": ("Remote Services: SMB/Windows Admin Shares", "TA0008"),
    "T1021.004": ("Remote Services: SSH", "TA0008"),
    "T1029": ("Scheduled Transfer", "TA0010"),
    "T1030": ("Data Transfer Size Limits", "TA0010"),
    "T1036": ("Masquerading", "TA0005"),
    "T1040": ("Network Sniffing", "TA0006 TA0007"),
    "T1041": ("Exfiltration Over C2 Channel", "TA0010"),
    "T1046": ("Network Service Discovery", "TA0007"),
    "T1048": ("Exfiltration Over Alternative Protocol", "TA0010"),
    "T1048.001": (
        "Exfiltration Over Alternative Protocol: Exfiltration Over Symmetric Encrypted Non-C2 Protocol",
        "TA0010",
    ),
    "T1048.003": (
        "Exfiltration Over Alternative Protocol: Exfiltration Over Unencrypted Non-C2 Protocol",
        "TA0010",
    ),
    "T1049": ("System Network Connections Discovery", "TA0007"),
    "T1053": ("Scheduled Task/Job", "TA0002 TA0003 TA0004"),
    "T1057": ("Process Discovery", "TA0007"),
    "T1059": ("Command and Scripting Interpreter", "TA0002"),
    "T1059.004": ("Command and Scripting Interpreter: Unix Shell", "TA0002"),
    "T1068": ("Exploitation for Privilege Escalation", "TA0004"),
    "T1070": ("Indicator Removal", "TA0005"),
    "T1071": ("Application Layer Protocol", "TA0011"),
    "T1071.001": ("Application Layer Protocol: Web Protocols", "TA0011"),
    "T1071.002": ("Application Layer Protocol: File Transfer Protocols", "TA0011"),
    "T1071.003": ("Application Layer Protocol: Mail Protocols", "TA0011"),
    "T1071.004": ("Application Layer Protocol: DNS", "TA0011"),
    "T1071.005": ("Application Layer Protocol: Publish/Subscribe Protocols", "TA0011"),
    "T1078": ("Valid Accounts", "TA0001 TA0003 TA0004 TA0005"),
    "T1082": ("System Information Discovery", "TA0007"),
    "T1083": ("File and Directory Discovery", "TA0007"),
    "T1087": ("Account Discovery", "TA0007"),
    "T1090": ("Proxy", "TA0011"),
    "T1090.003": ("Proxy: Multi-hop Proxy", "TA0011"),
    "T1095": ("Non-Application Layer Protocol", "TA0011"),
    "T1098": ("Account Manipulation", "TA0003 TA0004"),
    "T1102": ("Web Service", "TA0011"),
    "T1104": ("Multi-Stage Channels", "TA0011"),
    "T1105": ("Ingress Tool Transfer", "TA0011"),
    "T1110": ("Brute Force", "TA0006"),
    "T1132": ("Data Encoding", "TA0011"),
    "T1133": ("External Remote Services", "TA0001 TA0003"),
    "T1136": ("Create Account", "TA0003"),
    "T1190": ("Exploit Public-Facing Application", "TA0001"),
    "T1197": ("BITS Jobs", "TA0003 TA0005"),
    "T1203": ("Exploitation for Client Execution", "TA0002"),
    "T1204": ("User Execution", "TA0002"),
    "T1210": ("Exploitation of Remote Services", "TA0008"),
    "T1211": ("Exploitation for Defense Evasion", "TA0005"),
    "T1213": ("Data from Information Repositories", "TA0009"),
    "T1219": ("Remote Access Software", "TA0011"),
    "T1222": ("File and Directory Permissions Modification", "TA0005"),
    "T1485": ("Data Destruction", "TA0040"),
    "T1486": ("Data Encrypted for Impact", "TA0040"),
    "T1489": ("Service Stop", "TA0040"),
    "T1496": ("Resource Hijacking", "TA0040"),
    "T1496.001": ("Resource Hijacking: Compute Hijacking", "TA0040"),
    "T1498": ("Network Denial of Service", "TA0040"),
    "T1499": ("Endpoint Denial of Service", "TA0040"),
    "T1505": ("Server Software Component", "TA0003"),
    "T1505.003": ("Server Software Component: Web Shell", "TA0003"),
    "T1525": ("Implant Internal Image", "TA0003"),
    "T1528": ("Steal Application Access Token", "TA0006"),
    "T1530": ("Data from Cloud Storage", "TA0009"),
    "T1537": ("Transfer Data to Cloud Account", "TA0010"),
    "T1543": ("Create or Modify System Process", "TA0003 TA0004"),
    "T1548": ("Abuse Elevation Control Mechanism", "TA0004 TA0005"),
    "T1548.001": ("Abuse Elevation Control Mechanism: Setuid and Setgid", "TA0004 TA0005"),
    "T1550": ("Use Alternate Authentication Material", "TA0005 TA0008"),
    "T1552": ("Unsecured Credentials", "TA0006"),
    "T1552.001": ("Unsecured Credentials: Credentials In Files", "TA0006"),
    "T1552.005": ("Unsecured Credentials: Cloud Instance Metadata API", "TA0006"),
    "T1552.007": ("Unsecured Credentials: Container API", "TA0006"),
    "T1555": ("Credentials from Password Stores", "TA0006"),
    "T1556": ("Modify Authentication Process", "TA0003 TA0005 TA0006"),
    "T1557": ("Adversary-in-the-Middle", "TA0006 TA0009"),
    "T1562": ("Impair Defenses", "TA0005"),
    "T1565": ("Data Manipulation", "TA0040"),
    "T1566": ("Phishing", "TA0001"),
    "T1567": ("Exfiltration Over Web Service", "TA0010"),
    "T1568": ("Dynamic Resolution", "TA0011"),
    "T1568.002": ("Dynamic Resolution: Domain Generation Algorithms", "TA0011"),
    "T1570": ("Lateral Tool Transfer", "TA0008"),
    "T1571": ("Non-Standard Port", "TA0011"),
    "T1572": ("Protocol Tunneling", "TA0011"),
    "T1573": ("Encrypted Channel", "TA0011"),
    "T1573.002": ("Encrypted Channel: Asymmetric Cryptography", "TA0011"),
    "T1580": ("Cloud Infrastructure Discovery", "TA0007"),
    "T1595": ("Active Scanning", "TA0043"),
    "T1595.001": ("Active Scanning: Scanning IP Blocks", "TA0043"),
    "T1595.002": ("Active Scanning: Vulnerability Scanning", "TA0043"),
    "T1609": ("Container Administration Command", "TA0002"),
    "T1610": ("Deploy Container", "TA0002 TA0005"),
    "T1611": ("Escape to Host", "TA0004"),
    "T1612": ("Build Image on Host", "TA0005"),
    "T1613": ("Container and Resource Discovery", "TA0007"),
    "T1619": ("Cloud Storage Object Discovery", "TA0007"),
    "T1620": ("Reflective Code Loading", "TA0005"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Technique:
    """One technique as people know it."""

    id: str  # "T1071.004"
    name: str  # "Application Layer Protocol: DNS", "" where only the id is known
    tactics: tuple[str, ...]  # ids: "TA0011"

    @property
    def title(self) -> str:
        """`T1071.004 Application Layer Protocol: DNS`."""
        return f"{self.id} {self.name}".strip()


def technique(id: str) -> Technique:
    """What is known of a technique; of a sub-technique that is not, its parent's name and tactics."""
    name, tactics = _NAMES.get(id) or _NAMES.get(id.partition(".")[0], ("", ""))
    return Technique(id=id, name=name, tactics=tuple(tactics.split()))


def techniques_in(tags: Iterable[str]) -> tuple[str, ...]:
    """The techniques that tags of a Falco rule name: `T1059`, each once, in their order."""
    return tuple(dict.fromkeys(tag for tag in tags if _TECHNIQUE.fullmatch(tag)))
