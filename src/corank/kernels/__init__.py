"""Packed products for inference: C++ that is built when it is first used, with plain PyTorch beside it."""

from corank.kernels.popcount import INSTRUCTIONS, PackedSigns, instructions, pack_signs, sign_linear, sign_product

__all__ = ["INSTRUCTIONS", "PackedSigns", "instructions", "pack_signs", "sign_linear", "sign_product"]
