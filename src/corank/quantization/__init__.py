"""From what was asked for to a plan, and from a plan to a coded model of a width, a size or a rate."""
