"""What the training loop may ask of a module beyond `forward`."""

from __future__ import annotations

from typing import NamedTuple


class ParamOverride(NamedTuple):
    """How the optimiser treats one parameter; a module names its own in `optim_overrides()`.

    `lr_scale` multiplies the learning rate. `weight_decay` True or False overrides the rule that only
    tensors of two or more dimensions decay; None keeps the rule.
    """

    lr_scale: float = 1.0
    weight_decay: bool | None = None
