"""What people and other tools read of an incident: report, timeline and exports. Values in, bytes out; no file, no clock."""
