"""Export: the ONNX graph, the parity gate and the bundle."""
