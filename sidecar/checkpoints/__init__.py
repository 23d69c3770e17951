"""Model checkpoints: search, integrity check, download; and ONNX models."""
