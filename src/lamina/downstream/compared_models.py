"""Which networks a comparison was measured on, so that no score is taken for another's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from lamina.errors import LaminaError
from lamina.files import write_atomically
from lamina.frozen import network_sha256
from lamina.interop import load_encoder

FILE = "models.json"
Network = list[str]
"""What a network is called, and `network_sha256` of it, in a list as JSON keeps them."""


def identified(models: Mapping[str, Sequence[str]]) -> dict[str, list[Network]]:
    """What each name stands for now. Raises LaminaError where a network cannot be loaded."""
    return {
        name: [[spec, network_sha256(load_encoder(spec))] for spec in specs] for name, specs in models.items()
    }


def check_models(out: Path, models: Mapping[str, Sequence[Network]]) -> None:
    """Keep what each model of a comparison is, or see that it is still that; more models may follow, and more
    seeds of one that has several.

    Args:
        out: folder of the comparison.
        models: what is measured under each name, one network or one for each seed (`identified`).

    Raises:
        LaminaError: where a name stood for another network, or the network has changed since.
    """
    file = out / FILE
    before = _read(file)
    for name, networks in models.items():
        _check(out, name, before.get(name, []), networks)
    longest = {name: max(before.get(name, []), networks, key=len) for name, networks in models.items()}
    write_atomically(file, json.dumps({**before, **longest}, indent=1, ensure_ascii=False) + "\n")


def _check(out: Path, name: str, before: Sequence[Network], now: Sequence[Network]) -> None:
    if before and (len(before) == 1) != (len(now) == 1):
        raise LaminaError(
            f"in {out} {name} was measured as {len(before)} network(s), not {len(now)}; give it another name"
        )
    for (was, weights), (spec, found) in zip(before, now, strict=False):
        if was != spec:
            raise LaminaError(f"in {out} {name} was measured as {was}, not {spec}; give it another name")
        if weights != found:
            raise LaminaError(
                f"{spec} has changed since it was measured in {out}; give it another name, or another --out"
            )


def _read(file: Path) -> dict[str, list[Network]]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {
            str(name): [[str(spec), str(weights)] for spec, weights in networks]
            for name, networks in content.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        raise LaminaError(f"{file} is damaged; choose another --out") from None
