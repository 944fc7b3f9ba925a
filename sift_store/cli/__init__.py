"""The command line: `sift-store`. The only part of the core that imports typer and rich."""

from sift_store.cli.app import main

__all__ = ["main"]
