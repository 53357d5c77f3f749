"""The privileged flight recorder: rings, freezing, entering namespaces. Standard library only."""
