"""Model surgery without tracing: observe, fold, code, replace."""

from corank.layers.activation import InputQuantizer, fit_inputs
from corank.layers.code import LayerCode, Slot, stored_tensors
from corank.layers.coded import (
    CodedConv1d,
    CodedConv2d,
    CodedConv3d,
    CodedConvTranspose1d,
    CodedConvTranspose2d,
    CodedConvTranspose3d,
    CodedLayer,
    CodedLinear,
    coded_class,
)
from corank.layers.observe import Observation, names_of, observe
from corank.layers.prepare import Prepared, prepare, remove_norm, replace_module

__all__ = [
    "CodedConv1d",
    "CodedConv2d",
    "CodedConv3d",
    "CodedConvTranspose1d",
    "CodedConvTranspose2d",
    "CodedConvTranspose3d",
    "CodedLayer",
    "CodedLinear",
    "InputQuantizer",
    "LayerCode",
    "Observation",
    "Prepared",
    "Slot",
    "coded_class",
    "fit_inputs",
    "names_of",
    "observe",
    "prepare",
    "remove_norm",
    "replace_module",
    "stored_tensors",
]
