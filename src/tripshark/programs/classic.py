"""Evidence as classic pcap."""

from __future__ import annotations

from pathlib import Path

from tripshark.formats import pcap, pcapng


def to_pcap(source: Path, destination: Path) -> None:
    """Packets alone, for tools that read nothing else."""
    file = pcapng.read(source.read_bytes())
    linktype = file.interfaces[0].linktype if file.interfaces else 1
    destination.write_bytes(pcap.write(file.packets, linktype, 262_144))
