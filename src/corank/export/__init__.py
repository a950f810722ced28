"""From a quantized model to the files of other runtimes, each checked by running it."""

from corank.export.compressed_tensors import export_compressed_tensors
from corank.export.gguf import GgufTypes, export_gguf
from corank.export.int8_settings import Int8
from corank.export.onnx import export_onnx
from corank.export.onnx_int8 import export_onnx_int8
from corank.export.onnx_matmulnbits import export_onnx_matmulnbits
from corank.export.openvino import export_openvino
from corank.export.peft import PeftLayers, export_peft, load_peft_base, peft_base, peft_layers
from corank.export.peft_import import ImportedLayer, PeftImport, import_peft
from corank.export.result import ExportRequest, ExportResult, Target
from corank.export.targets import TARGETS

__all__ = [
    "TARGETS",
    "ExportRequest",
    "ExportResult",
    "GgufTypes",
    "ImportedLayer",
    "Int8",
    "PeftImport",
    "PeftLayers",
    "Target",
    "export_compressed_tensors",
    "export_gguf",
    "export_onnx",
    "export_onnx_int8",
    "export_onnx_matmulnbits",
    "export_openvino",
    "export_peft",
    "import_peft",
    "load_peft_base",
    "peft_base",
    "peft_layers",
]
