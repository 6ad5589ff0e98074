"""The command line of protocols that train: a model, data, and any field of the protocol's recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro

from lamina.cli.parse import long_names, parse, peek, with_config
from lamina.core.ranges import COUNT
from lamina.encoder.options import EncoderOptions, network_options
from lamina.evaluate.finetune.adapt import protocol_recipe
from lamina.evaluate.finetune.recipes import FinetuneRecipe, recipe_of
from lamina.evaluate.run_options import Going, Trained, TrainingRecipe
from lamina.evaluate.unused_options import check_fields, without_old_fields
from lamina.interop.load import load_encoder

R = TypeVar("R", bound=TrainingRecipe)


@dataclass(frozen=True)
class TrainingArguments(Generic[R]):
    """A model, data, the folder of a training, and any field of its recipe."""

    model: tyro.conf.Positional[str]
    """A run, a step of a run (runs/mff@100), a timm name, a weights file; untrained:MODEL for its twin."""
    data: tyro.conf.Positional[str]
    """Images with labels."""
    out: Path | None = None
    """Folder of the training; by default RUN/evaluations/PROTOCOL-DATA-seedS."""
    recipe: str | None = None
    """Recipe to start from; by default the published one for networks of that size (lamina recipes)."""
    config: Path | None = None
    """YAML file with fields of the recipe; options given beside it win."""
    network: str | None = None
    """timm name of the network, for a weights file that does not say."""
    heads: Annotated[int | None, tyro.conf.arg(name="encoder.heads"), COUNT] = None
    """Attention heads of the network, for a weights file of an unusual width, which does not say."""
    resume: bool = False
    """Go on with the training in its folder, exactly where it was (or start it)."""
    overwrite: bool = False
    """Replace the training in its folder."""
    dry_run: bool = False
    """Print the resolved recipe, the steps and the memory, and stop."""
    json: Path | None = None
    """Also write the score to this file."""
    fields: Annotated[R, tyro.conf.arg(name="")] = tyro.MISSING

    @property
    def options(self) -> EncoderOptions | None:
        """The network's options, for a weights file that does not say them."""
        return network_options(self.network, self.heads)

    @property
    def going(self) -> Going:
        """Where and how the training goes; seed, device and workers stand in the recipe too."""
        return Going(self.out, self.resume, self.overwrite, self.fields.train.seed)


A = TypeVar("A", bound=TrainingArguments[Any])


@dataclass(frozen=True)
class ProtocolArguments(TrainingArguments[FinetuneRecipe]):
    """Train on labels from a pre-trained encoder, then test once."""

    data: tyro.conf.Positional[str]
    """Labelled images: root/CLASS/..., root/{train,val}/CLASS/..., or a sample."""


def parse_training(
    what: type[A], verb: str, args: Sequence[str], start: Callable[[Sequence[str]], TrainingRecipe]
) -> A:
    """Arguments of `lamina evaluate VERB`: the recipe they start from, then --config, then the options given.

    Raises:
        LaminaError: in one line, for arguments that cannot be meant.
    """
    args = long_names(args)
    recipe = start(args)
    check_fields(_field_names(args), recipe, verb)
    start_from = with_config(recipe, args, without_old_fields)
    default = what(model=tyro.MISSING, data=tyro.MISSING, fields=start_from.recipe)
    parsed = parse(what, args, f"lamina evaluate {verb}", default)
    start_from.check(parsed.fields)
    return parsed


def _field_names(args: Sequence[str]) -> list[str]:
    """Of the options given, the fields of a recipe that they would be; --encoder.heads is of the model."""
    flags = [arg.partition("=")[0].removeprefix("--") for arg in args if arg.startswith("--")]
    names = [flag.replace("-", "_").replace(".no_", ".") for flag in flags]
    return [name for name in names if name != "encoder.heads"]


def parse_protocol(protocol: Trained, args: Sequence[str]) -> ProtocolArguments:
    """Arguments of `lamina evaluate PROTOCOL`; raises as `parse_training`."""
    return parse_training(ProtocolArguments, protocol, args, partial(_recipe, protocol))


def _recipe(protocol: Trained, args: Sequence[str]) -> FinetuneRecipe:
    """The one that is named, else the one for the model's size."""
    named = peek(args, "--recipe")
    if named is not None:
        return recipe_of(protocol, named)
    if not args or args[0].startswith("-") or {"-h", "--help"} & set(args):
        return recipe_of(protocol, protocol)
    heads = peek(args, "--encoder.heads")
    known = network_options(peek(args, "--network"), int(heads) if heads and heads.isdigit() else None)
    return protocol_recipe(protocol, load_encoder(args[0], encoder=known, pretrained=False))
