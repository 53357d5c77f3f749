"""What the Kubernetes API is used for: who runs where, captures beyond one node, events, and who may ask."""
