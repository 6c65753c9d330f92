"""The scoring service: FastAPI in front of one ONNX Runtime session, a score log and a review page."""

from components.scoring.service.settings import ServiceSettings

__all__ = ["ServiceSettings"]
