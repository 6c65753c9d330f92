"""Export: the ONNX graph, the parity gate and the bundle."""

from components.export.component import ExportSettings, export

__all__ = ["ExportSettings", "export"]
