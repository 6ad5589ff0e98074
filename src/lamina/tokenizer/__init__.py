"""Discrete tokenizers: images to a grid of ids from a finite vocabulary, and back."""

from lamina.tokenizer.dalle import DalleDecoder, DalleEncoder, DalleTokenizer, load_dalle
from lamina.tokenizer.folder import TokenizerFolder, build_tokenizer, load_tokenizer
from lamina.tokenizer.measure import TokenizerResult, measure_tokenizer, patch_means
from lamina.tokenizer.options import TokenizerOptions
from lamina.tokenizer.vae import DiscreteVAE

__all__ = [
    "DalleDecoder",
    "DalleEncoder",
    "DalleTokenizer",
    "DiscreteVAE",
    "TokenizerFolder",
    "TokenizerOptions",
    "TokenizerResult",
    "build_tokenizer",
    "load_dalle",
    "load_tokenizer",
    "measure_tokenizer",
    "patch_means",
]
