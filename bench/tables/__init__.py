"""One module per table; each has `measure(stage) -> Section`."""
