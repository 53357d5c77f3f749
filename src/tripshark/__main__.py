"""`python -m tripshark`."""

from tripshark.cli.main import main

main()
