"""The HTTP interface for people and programs."""
