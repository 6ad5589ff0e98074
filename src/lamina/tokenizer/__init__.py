"""Discrete tokenizers: images to a grid of ids from a finite vocabulary, and back."""

from lamina.tokenizer.dalle import DalleDecoder, DalleEncoder, DalleTokenizer, load_dalle
from lamina.tokenizer.own import DiscreteVAE

__all__ = ["DalleDecoder", "DalleEncoder", "DalleTokenizer", "DiscreteVAE", "load_dalle"]
