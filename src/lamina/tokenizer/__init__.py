"""Discrete tokenizers: images to a grid of ids from a finite vocabulary, and back."""
