"""Takes alerts in: webhook, file or standard input, authentication, the journal's front door."""
