"""Runs tshark in a sandboxed child."""
