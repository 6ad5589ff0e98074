"""The decoders as one type."""

from __future__ import annotations

from lamina.decoder.cross import CrossDecoder, PromptDecoder
from lamina.decoder.linear import LinearDecoder
from lamina.decoder.mae import MAEDecoder

Decoder = LinearDecoder | MAEDecoder | CrossDecoder | PromptDecoder
