"""Encoders from runs, weights files and timm; encoders handed over to timm."""
