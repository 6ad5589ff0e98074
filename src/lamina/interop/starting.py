"""Training that starts from what is trained: a weights file, or an encoder that is open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from lamina.encoder import Encoder, folded
from lamina.errors import LaminaError
from lamina.interop.backbone import Backbone
from lamina.interop.loading import export_files, weights_of
from lamina.interop.weights import Loaded, fit_positions, load_weights_into, mismatches, read_weights

MARK = "encoder.shortcuts"


def start_from(encoder: Encoder, path: str | Path) -> Loaded:
    """Fill the encoder from a weights file, as `load_weights_into` does for a bare network.

    An export of a run with residual decay is a plain network. An encoder without decay takes it as it is; one
    with decay, be it that of the run or another, takes it unfolded, and in both cases it computes what the
    file's network computes. Any other file's weights are taken as they are.

    Raises:
        LaminaError: where the file does not fit, or is a checkpoint of a run with another residual decay.
    """
    path = weights_of(path)
    mark = next((t for name, t in read_weights(path).items() if name.endswith(MARK)), None)
    if mark is not None:
        least, own = round(float(mark[-1, -1]), 6), encoder.residual_decay
        if own is None or round(own, 6) != least:
            raise LaminaError(
                f"{path.name} is a checkpoint of a run with residual_decay {least:g}, and this one has "
                f"{'none' if own is None else f'{own:g}'}; set --encoder.residual-decay {least:g}, or start "
                "from its export"
            )
    loaded = load_weights_into(encoder.vit, path)
    if encoder.factors is not None and _said(path).get("folded_residual_decay") is not None:
        state = folded(encoder.vit, encoder.factors, encoder.vit.state_dict(), back=True)
        encoder.vit.load_state_dict(state)
    return loaded


def adopt(encoder: Encoder, backbone: Backbone) -> bool:
    """Fill the encoder with the weights of another that is open, of the same network but for its image size;
    whether positions were resampled to another grid.

    Raises:
        LaminaError: where the networks differ in more, residual decay included. Nothing is changed then.
    """
    name = "the encoder" if backbone.origin is None else backbone.origin.name
    if encoder.residual_decay != backbone.encoder.residual_decay:
        raise LaminaError(f"{name} has residual_decay {backbone.encoder.residual_decay}; build with the same")
    found = dict(backbone.encoder.vit.state_dict())
    resampled = fit_positions(found, encoder.vit, backbone.encoder.grid)
    if problems := mismatches(encoder.vit.state_dict(), found):
        raise LaminaError(f"{name} does not fit this network: {problems}")
    encoder.vit.load_state_dict(found)
    return resampled


def _said(path: Path) -> dict[str, Any]:
    """What an export says of itself, in its header or in the JSON beside it; empty for other files."""
    weights, beside, _ = export_files(path)
    text = None
    try:
        if weights.suffix == ".safetensors":
            with safe_open(weights, framework="pt") as file:
                text = (file.metadata() or {}).get("lamina")
        if text is None and beside.is_file():
            text = beside.read_text(encoding="utf-8")
        about = json.loads(text).get("lamina") if text is not None else None
    except (SafetensorError, OSError, ValueError, AttributeError):
        return {}
    return about if isinstance(about, dict) else {}
