"""What can be measured of a network, and of what quantization did to it. Nothing here changes a network."""
