"""What the container runtimes of this machine know of pods and containers; read-only, privileged, apart."""
