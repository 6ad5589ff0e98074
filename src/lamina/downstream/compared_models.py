"""Which networks a comparison was measured on, so that no score is taken for another's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from lamina.errors import LaminaError
from lamina.files import write_atomically
from lamina.frozen import Identity, identify
from lamina.interop import load_encoder

FILE = "models.json"


def check_models(out: Path, models: Mapping[str, Sequence[str]], measured: Mapping[str, bool]) -> None:
    """Keep what each model of a comparison is, or see that it is still that; more models may follow, and more
    seeds of one that has several.

    Args:
        out: folder of the comparison.
        models: by the name of their files what is measured, one network or one for each seed.
        measured: whether nothing is left to measure of it; then it need not be there any more.

    Raises:
        LaminaError: where a name stood for another network, or the network has changed since, and as
            `load_encoder`.
    """
    file = out / FILE
    before = _read(file)
    after = dict(before)
    for name, specs in models.items():
        known = before.get(name, [])
        _check_names(out, name, known, specs)
        found = [_identity(spec, measured[name] and i < len(known)) for i, spec in enumerate(specs)]
        for old, new in zip(known, found, strict=False):
            if new is not None and new.sha256 != old.sha256:
                raise LaminaError(
                    f"{new.name} has changed since it was measured in {out}; give it another name, or take "
                    "another --out"
                )
        after[name] = [*known, *(new for new in found[len(known) :] if new is not None)]
    write_atomically(file, json.dumps(after, indent=1, ensure_ascii=False) + "\n")


def _check_names(out: Path, name: str, before: Sequence[Identity], specs: Sequence[str]) -> None:
    if before and (len(before) == 1) != (len(specs) == 1):
        raise LaminaError(
            f"in {out} {name} was measured as {len(before)} network(s), not {len(specs)}; give it another "
            "name"
        )
    for old, spec in zip(before, specs, strict=False):
        if old.name != spec:
            raise LaminaError(f"in {out} {name} was measured as {old.name}, not {spec}; give it another name")


def _identity(spec: str, may_be_gone: bool) -> Identity | None:
    """Which network it is, by its weights; None for one that is gone and not needed."""
    try:
        return identify(spec, load_encoder(spec))
    except LaminaError:
        if may_be_gone:
            return None
        raise


def _read(file: Path) -> dict[str, list[Identity]]:
    if not file.is_file():
        if (file.parent / "scores").is_dir():
            raise LaminaError(f"{file} is missing, which says what was measured; choose another --out")
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {
            str(name): [Identity(str(spec), str(sha256)) for spec, sha256 in networks]
            for name, networks in content.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        raise LaminaError(f"{file} is damaged; choose another --out") from None
