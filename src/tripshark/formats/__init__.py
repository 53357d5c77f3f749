"""Bytes and text to the model and back: no files, no sockets, no waiting."""
