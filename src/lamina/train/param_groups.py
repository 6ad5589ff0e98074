"""Which parameters share a learning rate and a weight decay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import nn

from lamina.core.errors import LaminaError
from lamina.core.interfaces import ParamOverride

TOKENS = ("cls_token", "dist_token", "reg_token", "mask_token", "pos_embed")
"""Last parts of the names of parameters that are tokens or positions, as timm's networks have them."""


def param_groups(
    module: nn.Module,
    weight_decay: float,
    lr_scales: Mapping[str, float] | None = None,
    decay_tokens: bool = True,
    matrices_apart: bool = False,
) -> list[dict[str, Any]]:
    """An optimiser's groups: one per (lr_scale, weight_decay), in the order in which the parameters appear.

    Each trainable parameter is in exactly one group. `optim_overrides()` of a module speaks for its direct
    parameters; `lr_scales` adds a factor by full parameter name (layer decay); `decay_tokens` says whether
    `TOKENS` decay. With `matrices_apart` no group holds matrices and vectors. A group carries its `lr_scale`,
    which `set_learning_rate` applies, and the `names` of its parameters.
    """
    overrides = _overrides(module)
    trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
    unknown = sorted(set(lr_scales or {}) - set(trainable))
    if unknown:
        raise LaminaError(f"learning-rate scale for {unknown[0]!r}, which is no trainable parameter")
    groups: dict[tuple[float, float, bool], dict[str, Any]] = {}
    for name, parameter in trainable.items():
        override = overrides.get(name, ParamOverride())
        decays = override.weight_decay
        if decays is None:
            decays = parameter.ndim > 1 and not name.endswith(".bias")
            decays = decays and (decay_tokens or name.rpartition(".")[2] not in TOKENS)
        scale = override.lr_scale * (lr_scales or {}).get(name, 1.0)
        key = (scale, weight_decay if decays else 0.0, matrices_apart and parameter.ndim > 1)
        fresh = {"params": [], "names": [], "lr_scale": scale, "weight_decay": key[1]}
        group = groups.setdefault(key, fresh)
        group["params"].append(parameter)
        group["names"].append(name)
    check_cover(module, list(groups.values()))
    return list(groups.values())


def layer_scales(module: nn.Module, decay: float) -> dict[str, float]:
    """Layer decay: `decay` to the power of how many layers lie above a parameter's own (BEiT's, MAE's).

    The module's `layer_ids()` give each trainable parameter's layer by its full name, 0 for the embedding.
    """
    ask = getattr(module, "layer_ids", None)
    if ask is None:
        raise LaminaError(f"{type(module).__name__} has no layers to decay; leave layer_decay out")
    ids: dict[str, int] = ask()
    top = max(ids.values())
    return {name: decay ** (top - layer) for name, layer in ids.items()}


def _overrides(module: nn.Module) -> dict[str, ParamOverride]:
    """Full parameter name -> override, gathered from every module that defines `optim_overrides`."""
    found: dict[str, ParamOverride] = {}
    for prefix, part in module.named_modules():
        overrides = getattr(part, "optim_overrides", None)
        if overrides is None:
            continue
        own = dict(part.named_parameters(recurse=False))
        for name, override in overrides().items():
            if name not in own:
                raise LaminaError(
                    f"{type(part).__name__}.optim_overrides names {name!r}, not one of its parameters"
                )
            found[f"{prefix}.{name}" if prefix else name] = override
    return found


def check_cover(module: nn.Module, groups: list[dict[str, Any]]) -> None:
    """Raise where the groups leave out a trainable parameter, or hold one twice or one that is frozen."""
    held = Counter(id(p) for group in groups for p in group["params"])
    for name, parameter in module.named_parameters():
        if held.pop(id(parameter), 0) != int(parameter.requires_grad):
            raise LaminaError(
                f"the optimiser's groups must hold the parameter {name!r} once if it is trained"
            )
    if held:
        raise LaminaError("the optimiser's groups hold a parameter that is not the module's own")
