"""The models of a comparison: names, seeds, and their networks, so that no score is taken for another's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lamina.core.errors import LaminaError
from lamina.core.frozen import WeightsId, identify
from lamina.core.records import expected_content, read_object, write_json
from lamina.encoder.options import EncoderOptions
from lamina.interop.load import load_encoder
from lamina.runs.model_spec import short_names

FILE = "models.json"


@dataclass(frozen=True)
class Column:
    """A model: one specification, or one for each seed."""

    name: str
    specs: tuple[str, ...]

    def spec_of(self, seed: int) -> str:
        """The model that is evaluated with that seed."""
        return self.specs[seed if len(self.specs) > 1 else 0]


def columns_of(models: Sequence[str]) -> tuple[Column, ...]:
    """Models as the command line names them: SPEC, or NAME=SPEC, or NAME=SPEC,SPEC,SPEC for runs of several
    seeds.

    Raises:
        LaminaError: where there is none, or two have one name.
    """
    if not models:
        raise LaminaError("name at least one model")
    named = [model for model in models if "=" in model.split("/")[0]]
    plain = short_names([model for model in models if model not in named]) if len(named) < len(models) else {}
    short = {spec: name for name, spec in plain.items()}
    columns = []
    for model in models:
        name, _, specs = model.partition("=") if model in named else (short[model], "", model)
        columns.append(Column(name, tuple(spec for spec in specs.split(",") if spec)))
    # macOS and Windows take names of files for one that differ in case alone.
    if len({as_file(column.name).casefold() for column in columns}) < len(columns):
        raise LaminaError(
            "two models have one name, up to punctuation and case; give names of their own: NAME=MODEL"
        )
    if bare := [column.name for column in columns if not column.specs]:
        raise LaminaError(f"{bare[0]} names no model; give {bare[0]}=MODEL")
    return tuple(columns)


def as_file(name: str) -> str:
    """A model's name as a part of a path."""
    return "".join(c if c.isalnum() or c in "+-" else "-" for c in name.replace(" ", ""))


def check_models(
    out: Path,
    models: Mapping[str, Sequence[str]],
    measured: Mapping[str, bool],
    encoder: EncoderOptions | None = None,
) -> None:
    """Keep what each model of a comparison is, or see that it is still that; more models may follow, and more
    seeds of one that has several.

    Args:
        out: folder of the comparison.
        models: by the name of their files what is measured, one network or one for each seed.
        measured: whether nothing is left to measure of it; then it need not be there any more.
        encoder: options of the network, for weights files that do not say.

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
        found = [_identity(spec, measured[name] and i < len(known), encoder) for i, spec in enumerate(specs)]
        for old, new in zip(known, found, strict=False):
            if new is not None and new.sha256 != old.sha256:
                raise LaminaError(
                    f"{new.name} has changed since it was measured in {out}; give it another name, or take "
                    "another --out"
                )
        after[name] = [*known, *(new for new in found[len(known) :] if new is not None)]
    write_json(file, after)


def _check_names(out: Path, name: str, before: Sequence[WeightsId], specs: Sequence[str]) -> None:
    if before and (len(before) == 1) != (len(specs) == 1):
        raise LaminaError(
            f"in {out} {name} was measured as {len(before)} network(s), not {len(specs)}; give it another "
            "name"
        )
    for old, spec in zip(before, specs, strict=False):
        if old.name != spec:
            raise LaminaError(f"in {out} {name} was measured as {old.name}, not {spec}; give it another name")


def _identity(spec: str, may_be_gone: bool, encoder: EncoderOptions | None) -> WeightsId | None:
    """The network's name and the digest of its weights; None for one that is gone and not needed."""
    try:
        return identify(spec, load_encoder(spec, encoder=encoder))
    except LaminaError:
        if may_be_gone:
            return None
        raise


def _read(file: Path) -> dict[str, list[WeightsId]]:
    if not file.is_file():
        if (file.parent / "scores").is_dir():
            raise LaminaError(f"{file} is missing, which says what was measured; choose another --out")
        return {}
    mend = "restore it from a copy, or choose another --out"
    with expected_content(file, mend):
        return {
            str(name): [WeightsId(str(spec), str(sha256)) for spec, sha256 in networks]
            for name, networks in read_object(file, mend=mend).items()
        }
