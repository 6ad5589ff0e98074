"""The decoders as one type."""

from __future__ import annotations

from lamina.decoder.cross import CrossDecoder
from lamina.decoder.linear import LinearDecoder
from lamina.decoder.mae import MAEDecoder
from lamina.decoder.prompt import PromptDecoder

Decoder = LinearDecoder | MAEDecoder | CrossDecoder | PromptDecoder
