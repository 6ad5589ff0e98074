"""Analyses of a Vision Transformer: frequencies, curvature, attention, similarity, rank and others."""
