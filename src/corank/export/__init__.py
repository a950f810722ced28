"""From a quantized model to the files of other runtimes, each checked by running it."""

from corank.export.onnx import export_onnx
from corank.export.result import ExportRequest, ExportResult, Target
from corank.export.targets import TARGETS

__all__ = ["TARGETS", "ExportRequest", "ExportResult", "Target", "export_onnx"]
