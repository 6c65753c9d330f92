"""The scoring service: FastAPI in front of one ONNX Runtime session, a score log and a review page; the inbox."""
