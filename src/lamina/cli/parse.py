"""The command line as typed values: any field by its dotted name, common ones by a short one, YAML files."""

from __future__ import annotations

import contextlib
import functools
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro
import yaml

from lamina.api import starting_recipe
from lamina.core.choices import check_read
from lamina.core.config import merge
from lamina.core.errors import LaminaError
from lamina.core.records import parse_yaml
from lamina.recipes.recipe import Recipe
from lamina.recipes.short_names import SHORT_NAMES

T = TypeVar("T")


@dataclass(frozen=True)
class PretrainArguments:
    """Pre-train a Vision Transformer on a folder of images."""

    data: tyro.conf.Positional[str]
    """Images: a folder (searched in depth), a .txt list, a quoted glob, or a sample
    (`lamina pretrain --help` names them)."""
    out: Path
    """Folder of the run."""
    recipe: str | None = None
    """Method and schedule to start from; by default mae, or on a resume the run's own."""
    config: Path | None = None
    """YAML file with fields of the recipe, as in a run's recipe.yaml; options given beside it win."""
    resume: bool = False
    """Go on with the run in --out, exactly where it was (or start it)."""
    overwrite: bool = False
    """Replace the run in --out."""
    init: str | None = None
    """Weights that the encoder starts from: a run, an export, what others trained (see lamina inspect), or
    timm/NAME for a timm model's published ones."""
    dry_run: bool = False
    """Print the resolved recipe, the steps and the memory, and stop."""
    fields: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=Recipe)


def parse_pretrain(args: Sequence[str]) -> PretrainArguments:
    """Arguments of `lamina pretrain`: the recipe, then --config, then the options given.

    Raises:
        LaminaError: in one line, for arguments that cannot be meant.
    """
    args = long_names(args)
    recipe = starting_recipe(peek(args, "--recipe"), peek(args, "--out") or "", "--resume" in args)
    start = with_config(recipe, args)
    default = PretrainArguments(data=tyro.MISSING, out=tyro.MISSING, fields=start.recipe)
    parsed = parse(PretrainArguments, args, "lamina pretrain", default)
    start.check(parsed.fields)
    return parsed


@dataclass(frozen=True)
class Start(Generic[T]):
    """The recipe that the options of a command line are given for."""

    recipe: T
    """With the fields of --config, where it is given."""
    before: T
    """Without those that people wrote there: of a run's recipe.yaml all fields are the run's."""

    def check(self, chosen: T) -> None:
        """Refuse what has no effect, of --config and of the options that led to the recipe `chosen`."""
        check_read(self.before, self.recipe, in_the_end=chosen)
        check_read(self.recipe, chosen)


def with_config(
    recipe: T,
    args: Sequence[str],
    saved: Callable[[Mapping[str, Any], T], Mapping[str, Any]] = lambda fields, _: fields,
) -> Start[T]:
    """The recipe as --config has it, where it is given.

    `saved` chooses, of the fields that a run wrote, those that recipes have today."""
    config = peek(args, "--config")
    if config is None:
        return Start(recipe, recipe)
    content = _read_mapping(Path(config))
    fields = _fields_of(content)
    if fields is content:
        return Start(merge(recipe, fields), recipe)
    configured = merge(recipe, saved(fields, recipe))
    return Start(configured, configured)


def parse(what: type[T] | Callable[..., T], args: Sequence[str], prog: str, default: Any = None) -> T:
    """`tyro.cli` with its boxed message turned into one line."""
    text = io.StringIO()
    extra = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(text):
            return tyro.cli(what, args=list(args), prog=prog, **extra)  # type: ignore[no-any-return]
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise LaminaError(_one_line(text.getvalue(), prog)) from None


def parse_call(function: Callable[..., int], args: Sequence[str], prog: str) -> Callable[[], int]:
    """The function with its arguments, not called yet: what it says on stderr is its own."""

    @functools.wraps(function)
    def later(*given: Any, **named: Any) -> Callable[[], int]:
        return functools.partial(function, *given, **named)

    return parse(later, args, prog)


def _in_words(kinds: str) -> str:
    """tyro's notation of what an option takes: {[INT [INT ...]]}|{default, odd,all}."""
    words = kinds.replace("[INT [INT ...]]", "whole numbers").replace("[FLOAT [FLOAT ...]]", "numbers")
    words = words.replace("INT INT", "two whole numbers")
    parts = [re.sub(r"\s*,\s*", ", ", part.strip("{}")) for part in words.split("|")]
    return ", or ".join(parts)


def _unboxed(box: str) -> list[str]:
    """The lines of what tyro prints in a box, in colours on a terminal; without the box and its title."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [re.sub(r"^[│╭╰]\s?|\s*[│╮╯]$", "", line).strip() for line in plain.splitlines()]
    if "│" not in plain:  # where no box can be drawn, the title stands over a rule
        return [re.sub(r"^-+$", "─", line) for line in lines[2:]]
    body = [line for line in lines if not line.startswith(("─ ", "──")) or set(line) == {"─"}]
    return body[1:] if body and set(body[0]) == {"─"} else body


def _one_line(box: str, prog: str) -> str:
    """What tyro prints in a box, as far as its first rule."""
    body = _unboxed(box)
    end = next((i for i, line in enumerate(body) if set(line) == {"─"}), len(body))
    sentence = re.sub(r"\s+", " ", " ".join(body[:end])).strip().rstrip(".")
    sentence = re.sub(
        r"[Ee]rror parsing (--\S+): no type matching (.+?) could be instantiated from \[(.*?)\](?=\W|$)",
        lambda found: f"{found[1]} cannot be {found[3]}; it takes {_in_words(found[2])}",
        sentence,
    )
    sentence = re.sub(
        r"[Ee]rror parsing (--\S+): (?:invalid literal for int\(\) with base 10|(could not .* float)): (.*)",
        lambda found: f"{found[1]} cannot be {found[3]}; it takes a {'' if found[2] else 'whole '}number",
        sentence,
    )
    # A range is told by the group that has it, which does not know its own name.
    sentence = re.sub(r"^Error parsing fields\.([\w.]+): (\w+ is )", r"\1.\2", sentence)
    sentence = re.sub(r"^Error parsing fields\.[\w.]+: ", "", sentence).split(" Got errors:")[0].rstrip(".")
    return f"{sentence[:1].lower()}{sentence[1:]}; see `{prog} --help`"


def long_names(args: Sequence[str]) -> list[str]:
    """Each argument, short names as the dotted ones they stand for."""
    return [_long_name(arg) for arg in args]


def _long_name(arg: str) -> str:
    """--batch-size (or --batch-size=8) as the dotted name it stands for."""
    flag, equals, value = arg.partition("=")
    dotted = SHORT_NAMES.get(flag.removeprefix("--").replace("-", "_")) if flag.startswith("--") else None
    return arg if dotted is None else f"--{dotted.replace('_', '-')}{equals}{value}"


def peek(args: Sequence[str], flag: str) -> str | None:
    """The last value of a flag, before the arguments are parsed for good."""
    found = None
    for i, arg in enumerate(args):
        if arg == flag and i + 1 < len(args):
            found = args[i + 1]
        elif arg.startswith(f"{flag}="):
            found = arg.partition("=")[2]
    return found


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers: 1e-3 is one, which YAML 1.1 takes for text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)[eE][-+]?\d+"), list("-+0123456789.")
)


def read_config(file: Path) -> dict[str, Any]:
    """Fields of a recipe from a YAML file, as people write it or as a run keeps it.

    Raises:
        LaminaError: where it cannot be read, or holds something else.
    """
    return _fields_of(_read_mapping(file))


def _fields_of(content: dict[str, Any]) -> dict[str, Any]:
    """Those of a recipe: in a run's recipe.yaml they are a group beside what else is known of the run."""
    recipe = content.get("recipe")
    return recipe if isinstance(recipe, dict) else content


def _read_mapping(file: Path) -> dict[str, Any]:
    try:
        # Where it began as a run's recipe.yaml it may have been edited since, so its digest is no matter.
        content = parse_yaml(file.read_text(encoding="utf-8"), verify=False, kind=_Loader)
    except OSError as error:
        raise LaminaError(f"--config {file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LaminaError(
            f"--config {file} is not text in UTF-8 (byte {error.start + 1}); save it in that encoding"
        ) from error
    except ValueError as error:
        raise LaminaError(f"--config {file} cannot be used: {' '.join(str(error).split())}") from error
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise LaminaError(f"--config {file} must hold a mapping of options, such as 'train: {{epochs: 10}}'")
    return content
