"""The public calls, one file each, and what they share."""
