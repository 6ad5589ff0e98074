"""The verb `lamina tokenizer train`."""

from __future__ import annotations

from pathlib import Path

from lamina.cli.arguments import Flat, Images
from lamina.tokenizer.options import TokenizerOptions


def train(
    data: Images,
    /,
    out: Path,
    resume: bool = False,
    overwrite: bool = False,
    options: Flat[TokenizerOptions] = TokenizerOptions(),
) -> int:
    """Train a discrete tokenizer on images, whose token ids are BEiT's target, and test it on held-out ones.

    Args:
        out: Folder of the tokenizer.
        resume: Continue the training in --out exactly where it stopped; start it where there is none.
        overwrite: Replace the tokenizer in --out.
        options: Network and schedule of the tokenizer.
    """
    from lamina.api import tokenizer_callbacks
    from lamina.tokenizer_training import train_tokenizer

    outcome = train_tokenizer(
        data, out, options, resume=resume, overwrite=overwrite, callbacks=tokenizer_callbacks
    )
    return outcome.exit_code
