"""CMAE: contrast between two views beside the reconstruction."""
