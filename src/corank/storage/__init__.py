"""Bytes: packed codes and the artifact file."""
