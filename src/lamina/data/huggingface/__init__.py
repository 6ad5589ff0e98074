"""Datasets of Hugging Face: from the hub by their names, and from folders."""
