"""Exported detectors: ONNX files that inference engines other than torch compute."""
