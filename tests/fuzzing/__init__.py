"""Artifacts that are not what they should be: networks to make sound ones of, and what damages and forges them."""
