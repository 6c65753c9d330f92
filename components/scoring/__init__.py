"""Scoring with a bundle: ONNX Runtime, numpy, Pillow and pyarrow; never torch."""
