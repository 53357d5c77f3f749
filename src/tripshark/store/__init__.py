"""Keeps what must last: journal, catalogue, evidence."""
