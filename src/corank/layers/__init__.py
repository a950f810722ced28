"""Model surgery without tracing: observe, fold, code, replace."""

from corank.layers.activation import InputQuantizer, InputRounder, fit_inputs
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
from corank.layers.find_structure import find_structure
from corank.layers.folding import remove_norm, replace_module
from corank.layers.kinds import coded_class
from corank.layers.observe import Observation, names_of, observe
from corank.layers.prepare import PreparedModel, prepare
from corank.layers.rprelu import RPReLU
from corank.layers.shortcut import Shortcut
from corank.layers.split import CoarseFineConv2d, centre_codecs, split_centres
from corank.layers.state import CodedLayerState, LayerFormat, TensorSpec
from corank.layers.structure import KINDS, Structure, apply_structure, read_structure

__all__ = [
    "KINDS",
    "BinaryInputs",
    "CoarseFineConv2d",
    "CodedConv1d",
    "CodedConv2d",
    "CodedConv3d",
    "CodedConvTranspose1d",
    "CodedConvTranspose2d",
    "CodedConvTranspose3d",
    "CodedLayer",
    "CodedLayerState",
    "CodedLinear",
    "InputQuantizer",
    "InputRounder",
    "LayerFormat",
    "Observation",
    "PreparedModel",
    "RPReLU",
    "Shortcut",
    "Structure",
    "TensorSpec",
    "apply_structure",
    "centre_codecs",
    "coded_class",
    "find_structure",
    "fit_inputs",
    "names_of",
    "observe",
    "prepare",
    "read_structure",
    "remove_norm",
    "replace_module",
    "split_centres",
]
