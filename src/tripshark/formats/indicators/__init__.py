"""Lists of indicators as operators have them: plain text, STIX 2.1 bundles, MISP events."""
