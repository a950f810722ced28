"""Model surgery without tracing: observe, fold, code, replace."""

from corank.layers.activation import InputQuantizer, InputRounder, fit_inputs
from corank.layers.attention import AttentionReader
from corank.layers.binary_inputs import BinaryInputs
from corank.layers.coded import (
    CodedConv1d,
    CodedConv2d,
    CodedConv3d,
    CodedConvTranspose1d,
    CodedConvTranspose2d,
    CodedConvTranspose3d,
    CodedLayer,
    CodedLinear,
)
from corank.layers.find_structure import FOUND, find_structure
from corank.layers.folding import remove_norm
from corank.layers.half import HalfModule, HalfParameters
from corank.layers.held import CodedHeldWeight, HeldWeight
from corank.layers.hold_weights import as_held, give_back_float
from corank.layers.kinds import coded_class
from corank.layers.lookup import CodedEmbedding, CodedEmbeddingBag
from corank.layers.observe import Observation, module_named, names_of, observe
from corank.layers.packed import PackedConv2d, PackedLinear, is_packable, packed_layer
from corank.layers.packed_codes import PackedMatrix, PackedWeight, packed_codes
from corank.layers.packed_layers import (
    CodesEmbedding,
    CodesLayer,
    CodesLinear,
    TiedEmbedding,
    TiedLinear,
    is_packed,
    pack_layers,
)
from corank.layers.prepare import PreparedModel, prepare
from corank.layers.query_key import ProductAttention, QueryKeyAttention
from corank.layers.recurrent import CellReader, RecurrentReader
from corank.layers.replace import replace_module
from corank.layers.rotate import ROTATIONS, check_rotation, rotated
from corank.layers.rotated import RotatedLayer
from corank.layers.rounded_operand import RoundedOperand
from corank.layers.rprelu import RPReLU
from corank.layers.shortcut import Shortcut
from corank.layers.split import CoarseFineConv2d, centre_codecs, split_centres
from corank.layers.state import CodedLayerState, LayerFormat, TensorSpec
from corank.layers.structure import (
    KINDS,
    STRUCTURE,
    Structure,
    apply_structure,
    read_structure,
    structure_of,
    with_widths,
)
from corank.layers.transposed import CodedTransposedLinear, TransposedLinear

__all__ = [
    "FOUND",
    "KINDS",
    "ROTATIONS",
    "STRUCTURE",
    "AttentionReader",
    "BinaryInputs",
    "CellReader",
    "CoarseFineConv2d",
    "CodedConv1d",
    "CodedConv2d",
    "CodedConv3d",
    "CodedConvTranspose1d",
    "CodedConvTranspose2d",
    "CodedConvTranspose3d",
    "CodedEmbedding",
    "CodedEmbeddingBag",
    "CodedHeldWeight",
    "CodedLayer",
    "CodedLayerState",
    "CodedLinear",
    "CodedTransposedLinear",
    "CodesEmbedding",
    "CodesLayer",
    "CodesLinear",
    "HalfModule",
    "HalfParameters",
    "HeldWeight",
    "InputQuantizer",
    "InputRounder",
    "LayerFormat",
    "Observation",
    "PackedConv2d",
    "PackedLinear",
    "PackedMatrix",
    "PackedWeight",
    "PreparedModel",
    "ProductAttention",
    "QueryKeyAttention",
    "RPReLU",
    "RecurrentReader",
    "RotatedLayer",
    "RoundedOperand",
    "Shortcut",
    "Structure",
    "TensorSpec",
    "TiedEmbedding",
    "TiedLinear",
    "TransposedLinear",
    "apply_structure",
    "as_held",
    "centre_codecs",
    "check_rotation",
    "coded_class",
    "find_structure",
    "fit_inputs",
    "give_back_float",
    "is_packable",
    "is_packed",
    "module_named",
    "names_of",
    "observe",
    "pack_layers",
    "packed_codes",
    "packed_layer",
    "prepare",
    "read_structure",
    "remove_norm",
    "replace_module",
    "rotated",
    "split_centres",
    "structure_of",
    "with_widths",
]
