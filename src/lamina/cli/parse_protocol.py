"""The command line of protocols that train: a model, data, and any field of the protocol's recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro

from lamina.cli.parse import long_names, parse, peek, with_config
from lamina.core.errors import LaminaError
from lamina.encoder.options import EncoderOptions, network_options
from lamina.evaluate.finetune.adapt import protocol_recipe, recipe_of
from lamina.evaluate.run_options import Going, Trained, TrainingRecipe
from lamina.interop.load import load_encoder
from lamina.recipes.recipe import Recipe

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
        return network_options(self.network, self.attention_heads)

    @property
    def attention_heads(self) -> int | None:
        """Of the network, where they are given."""
        return None

    @property
    def going(self) -> Going:
        """Where and how the training goes; seed, device and workers stand in the recipe too."""
        return Going(self.out, self.resume, self.overwrite, self.fields.train.seed)


A = TypeVar("A", bound=TrainingArguments[Any])


@dataclass(frozen=True)
class ProtocolArguments(TrainingArguments[Recipe]):
    """Train on labels from a pre-trained encoder, then test once."""

    data: tyro.conf.Positional[str]
    """Labelled images: root/CLASS/..., root/{train,val}/CLASS/..., or a sample."""

    @property
    def attention_heads(self) -> int | None:
        """Of the network: a field of the recipe."""
        return self.fields.encoder.heads


def parse_training(
    what: type[A], verb: str, args: Sequence[str], start: Callable[[Sequence[str]], TrainingRecipe]
) -> A:
    """Arguments of `lamina evaluate VERB`: the recipe they start from, then --config, then the options given.

    Raises:
        LaminaError: in one line, for arguments that cannot be meant.
    """
    args = long_names(args)
    start_from = with_config(start(args), args)
    default = what(model=tyro.MISSING, data=tyro.MISSING, fields=start_from.recipe)
    parsed = parse(what, args, f"lamina evaluate {verb}", default)
    start_from.check(parsed.fields)
    return parsed


def parse_protocol(protocol: Trained, args: Sequence[str]) -> ProtocolArguments:
    """Arguments of `lamina evaluate PROTOCOL`; raises as `parse_training`."""
    if (
        peek(long_names(args), "--encoder.name") is not None
    ):  # also where it is the recipe's own, unused, value
        raise LaminaError(
            "--encoder has no effect: the network is the model's; for a weights file that does not say which "
            "it is, give --network"
        )
    return parse_training(ProtocolArguments, protocol, args, partial(_recipe, protocol))


def _recipe(protocol: Trained, args: Sequence[str]) -> Recipe:
    """The one that is named, else the one for the model's size."""
    named = peek(args, "--recipe")
    if named is not None:
        return recipe_of(protocol, named)
    if not args or args[0].startswith("-") or {"-h", "--help"} & set(args):
        return recipe_of(protocol, protocol)
    heads = peek(args, "--encoder.heads")
    known = network_options(peek(args, "--network"), int(heads) if heads and heads.isdigit() else None)
    return protocol_recipe(protocol, load_encoder(args[0], encoder=known, pretrained=False))
