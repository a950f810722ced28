"""The command `corank`: one file per command, each thin, written against the public names of corank."""

from corank.cli.app import app, main

__all__ = ["app", "main"]
