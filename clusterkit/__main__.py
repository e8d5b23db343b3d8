"""`python -m clusterkit`."""

from clusterkit.cli.main import main

main()
