"""From a quantized model to the files of other runtimes, each checked by running it."""

from corank.export.onnx import export_onnx
from corank.export.peft import PeftLayers, export_peft, load_peft_base, peft_base, peft_layers
from corank.export.peft_import import ImportedLayer, PeftImport, import_peft
from corank.export.result import ExportRequest, ExportResult, Target
from corank.export.targets import TARGETS

__all__ = [
    "TARGETS",
    "ExportRequest",
    "ExportResult",
    "ImportedLayer",
    "PeftImport",
    "PeftLayers",
    "Target",
    "export_onnx",
    "export_peft",
    "import_peft",
    "load_peft_base",
    "peft_base",
    "peft_layers",
]
