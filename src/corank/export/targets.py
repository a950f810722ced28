"""The targets of ``corank export --to NAME``. A new one is one more line."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from corank.export.compressed_tensors import export_compressed_tensors
from corank.export.gguf import export_gguf
from corank.export.onnx import export_onnx
from corank.export.onnx_int8 import export_onnx_int8
from corank.export.onnx_matmulnbits import export_onnx_matmulnbits
from corank.export.openvino import export_openvino
from corank.export.peft import export_peft
from corank.export.result import ExportRequest, ExportResult, Target

__all__ = ["TARGETS"]


def _compressed_tensors(request: ExportRequest) -> ExportResult:
    return export_compressed_tensors(request.model, request.path, request.example)


def _gguf(request: ExportRequest) -> ExportResult:
    return export_gguf(request.model, request.path, request.example)


def _onnx(request: ExportRequest) -> ExportResult:
    return export_onnx(request.model, request.path, request.example, past=request.past, dynamic=request.dynamic)


def _onnx_dense(request: ExportRequest) -> ExportResult:
    return export_onnx(
        request.model, request.path, request.example, dense=True, past=request.past, dynamic=request.dynamic
    )


def _onnx_int8(request: ExportRequest) -> ExportResult:
    return export_onnx_int8(request.model, request.path, request.images)


def _onnx_matmulnbits(request: ExportRequest) -> ExportResult:
    return export_onnx_matmulnbits(
        request.model, request.path, request.example, past=request.past, dynamic=request.dynamic
    )


def _openvino(request: ExportRequest) -> ExportResult:
    return export_openvino(request.model, request.path, request.example, past=request.past, dynamic=request.dynamic)


def _peft(request: ExportRequest) -> ExportResult:
    return export_peft(request.model, request.path, request.example)


TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        "compressed-tensors": Target("a folder that vLLM serves, codes packed", _compressed_tensors, folder=True),
        "gguf": Target("a GGUF file for llama.cpp, codes as they are", _gguf, suffix=".gguf"),
        "onnx": Target("an ONNX file with packed weights", _onnx, takes_past=True),
        "onnx-dense": Target(
            "an ONNX file with codes of every width packed, decoded by arithmetic", _onnx_dense, takes_past=True
        ),
        "onnx-int8": Target("an ONNX file that computes in int8", _onnx_int8, needs_images=True),
        "onnx-matmulnbits": Target(
            "an ONNX file whose linear layers stay packed in memory", _onnx_matmulnbits, takes_past=True
        ),
        "openvino": Target("OpenVINO IR with packed weights", _openvino, takes_past=True, suffix=".xml"),
        "peft": Target("a float base and a LoRA checkpoint for peft", _peft, folder=True),
    }
)
