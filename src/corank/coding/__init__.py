"""Layers coded one by one or in sequence, and put in place."""
