"""Channels and heads that go together: found, weighed, chosen and removed."""
