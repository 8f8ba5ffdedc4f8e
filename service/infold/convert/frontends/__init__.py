"""One file a framework: each turns what training left on disk into unfolded ONNX."""
