"""Tripshark beside the tools one would use instead: `python -m bench [table…] [--quick]`."""
