"""From what the encoder saw to a prediction for the patches that were hidden.

A decoder says with `takes` whether it reads the visible patches or all of them, and with `n_latents` how
many latents: one is a tensor, several are a list.
"""

from __future__ import annotations

from lamina.decoder.cross import CrossDecoder
from lamina.decoder.linear import LinearDecoder
from lamina.decoder.mae import MAEDecoder
from lamina.decoder.options import DecoderOptions
from lamina.decoder.prompt import PromptDecoder

Decoder = LinearDecoder | MAEDecoder | CrossDecoder | PromptDecoder

__all__ = ["CrossDecoder", "Decoder", "DecoderOptions", "LinearDecoder", "MAEDecoder", "PromptDecoder"]
