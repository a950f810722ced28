"""Networks that train while their weights are low-bit."""
