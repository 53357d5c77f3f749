"""Tripshark: Falco fires; you get the packets from before it fired, in one sealed pcapng file."""

__version__ = "0.1.0"
