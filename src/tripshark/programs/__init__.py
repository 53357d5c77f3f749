"""One module per process: the only place where real parts are screwed together."""
