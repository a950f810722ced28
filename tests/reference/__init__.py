"""Slow, obvious implementations to test against."""
