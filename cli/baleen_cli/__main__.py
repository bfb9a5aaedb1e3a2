"""`python -m baleen_cli` is the `baleen` command."""

from baleen_cli.main import main

main()
