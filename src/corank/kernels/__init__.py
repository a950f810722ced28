"""Packed products for inference: C++ that is built when it is first used, with plain PyTorch beside it."""

from corank.kernels.code_layout import laid_out, rows_laid_out
from corank.kernels.codebook import PackedCodes, codebook_instructions, codebook_linear, codebook_rows
from corank.kernels.popcount import INSTRUCTIONS, PackedSigns, instructions, pack_signs, sign_linear, sign_product

__all__ = [
    "INSTRUCTIONS",
    "PackedCodes",
    "PackedSigns",
    "codebook_instructions",
    "codebook_linear",
    "codebook_rows",
    "instructions",
    "laid_out",
    "pack_signs",
    "rows_laid_out",
    "sign_linear",
    "sign_product",
]
