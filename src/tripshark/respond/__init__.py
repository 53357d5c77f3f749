"""Alert to sealed evidence: the whole flow, and the runner that owns every task."""
