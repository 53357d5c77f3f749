"""Stock Wireshark made to know us: its profile on disk, and what an extcap says and is told."""
