"""Which layer each parameter of a task is of, for layer decay."""

from __future__ import annotations

from torch import nn


def layer_ids(task: nn.Module, depth: int) -> dict[str, int]:
    """The layer of each trained parameter, as in BEiT, MAE and ViTDet: 0 for the embedding, i + 1 for block
    i, depth + 1 for the final norm and all above.

    Args:
        task: a module whose `encoder` is an `Encoder`. depth: blocks of that.
    """
    trained = (name for name, parameter in task.named_parameters() if parameter.requires_grad)
    return {name: _layer(name, depth) for name in trained}


def _layer(name: str, depth: int) -> int:
    part = name.removeprefix("encoder.vit.")
    if part == name or part.startswith("norm."):
        return depth + 1
    return int(part.split(".")[1]) + 1 if part.startswith("blocks.") else 0
