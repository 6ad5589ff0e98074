"""Networks that are not trained: frozen ones, which no checkpoint holds, and others in evaluation mode for a
while."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class WeightsId(NamedTuple):
    """Which network it is: what it is called, and `weights_sha256` of its state."""

    name: str
    sha256: str


class Frozen(nn.Module):
    """Holds a network that stays as it is.

    It is an ordinary submodule, so it moves with `.to(device)` and its parameters are listed; but they need
    no gradient, it is in evaluation mode whatever `train()` says, and it is left out of `state_dict()`. A
    state without it loads, strictly too; what a state says about it is passed over.

    Args:
        net: the network; it is frozen in place.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.requires_grad_(False)
        self.register_state_dict_post_hook(_leave_out)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_put_own)  # type: ignore[no-untyped-call]
        self.eval()

    def train(self, mode: bool = True) -> Frozen:
        """Stays in evaluation mode."""
        super().train(False)
        return self


def device_of(module: nn.Module) -> torch.device:
    """The device of a module's parameters; the CPU where it has none."""
    return next(module.parameters(), torch.empty(0)).device


@contextmanager
def modes_kept(module: nn.Module) -> Iterator[None]:
    """Whatever happens inside, each submodule has its own mode (training or evaluation) back afterwards.

    (`module.train()` would put frozen submodules into training mode too.)
    """
    modes = [(part, part.training) for part in module.modules()]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards each submodule has its own mode back."""
    with modes_kept(module), torch.no_grad():
        module.eval()
        yield


def identify(name: str, net: nn.Module) -> WeightsId:
    """The name and the SHA-256 of a network's weights as they are now."""
    return WeightsId(name, weights_sha256(net.state_dict()))


def weights_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256, in hexadecimal, over names, dtypes, shapes and bytes in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


_FIRST_HOMES = {
    "lamina.cmae.cmae": "lamina.cmae",
    "lamina.core.frozen": "lamina.frozen",
    "lamina.decoder.cross.PromptDecoder": "lamina.decoder.prompt",
    "lamina.decoder.cross.ReadingBlock": "lamina.decoder.reading",
    "lamina.fusion.last_layer": "lamina.fusion.last",
    "lamina.fusion.layer_mix": "lamina.fusion.mix",
    "lamina.supervised.classifier": "lamina.supervised.supervised",
    "lamina.supervised.normalized": "lamina.supervised.teacher",
    "lamina.supervised.pooling": "lamina.supervised.reading",
    "lamina.targets.token_ids": "lamina.targets.tokens",
    "lamina.tokenizer.vae": "lamina.tokenizer.own",
}
"""Where the modules of networks, or single classes of them, were when their hashes were first kept: moving a
file changes no network."""


def _first_name(kind: type) -> str:
    """The dotted name that a class had then."""
    name = f"{kind.__module__}.{kind.__qualname__}"
    home = _FIRST_HOMES.get(name) or _FIRST_HOMES.get(kind.__module__) or kind.__module__
    return f"{home}.{kind.__qualname__}"


def network_sha256(network: nn.Module) -> str:
    """SHA-256 over all tensors of a network, those that a checkpoint leaves out too, and its structure.

    The structure are the modules' names, types and plain attributes: heads, epsilons and taps, which no
    tensor tells.
    """
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    structure = [
        [name, _first_name(type(module)), _plain(vars(module))] for name, module in network.named_modules()
    ]
    text = json.dumps([weights_sha256(tensors), structure], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    names = [name for name in attributes if not name.startswith("_") and name != "training"]
    return {name: attributes[name] for name in names if _is_plain(attributes[name])}


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _leave_out(module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        del state[name]


def _put_own(module: nn.Module, state: dict[str, Any], prefix: str, *rest: object) -> None:
    """Before loading, the network's own tensors stand in for what a state has of them, or has not."""
    for name in [name for name in state if name.startswith(prefix)]:
        del state[name]
    assert isinstance(module, Frozen)
    state.update({f"{prefix}net.{name}": tensor for name, tensor in module.net.state_dict().items()})
