"""The verb `lamina pretrain`, and its short help."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import tyro
from rich.table import Table

from lamina.cli.arguments import PretrainArguments
from lamina.cli.config_file import with_config
from lamina.cli.output import say
from lamina.cli.parse import long_names, parse, peek
from lamina.core.console import make_console
from lamina.core.field_texts import field_texts
from lamina.data.samples.catalog import sample_names
from lamina.methods.catalog import METHODS
from lamina.methods.catalog import recipe as named_recipe
from lamina.recipes.recipe import Recipe
from lamina.recipes.short_names import SHORT_NAMES

_FLAGS = {"recipe": " NAME", "config": " FILE", "resume": "", "overwrite": "", "init": " FILE", "dry_run": ""}
"""The options that are no fields of the recipe, and the values that they take."""
_USAGE = f"""\
usage: lamina pretrain DATA --out RUN [options]

DATA is a folder (searched in depth), a .txt list, a quoted glob, or a sample:
{sample_names()}.
RUN is a new folder; everything about the run is kept in it.
"""
_END = f"""
Methods: {", ".join(method.name for method in METHODS)}.
--recipe takes METHOD or METHOD-small, or METHOD-ti, -s, -b, -l or -h as published.

--help-all lists all other options. They have dotted names, such as --fusion.layers 0 2 11 or
--optim.weight-decay 0.1.

Exit codes:
  0   done
  2   wrong arguments or data, too many files that cannot be read, or a data worker that died
  70  too many non-finite steps: continue with --resume and another --base-lr,
      --optim.clip-grad or --precision
  75  interrupted by a signal (Ctrl-C, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 or SIGXCPU), with the
      step saved: continue with --resume. The same signal a second time ends the run at once,
      without saving."""


def pretrain(_: str, args: Sequence[str]) -> int:
    """Pre-train, or with --dry-run print what would be done; returns the exit code.

    Raises:
        LaminaError: in one line, for arguments that cannot be used and for whatever stops a run.
    """
    if {"-h", "--help"} & set(args):
        _print_help()
        return 0
    arguments = parse_pretrain(["--help" if arg == "--help-all" else arg for arg in args])
    from lamina.api import report_callbacks
    from lamina.cli.dry_run import describe
    from lamina.pretraining import run_pretrain
    from lamina.runs.run import Run
    from lamina.train.distributed import is_main

    run = Run(arguments.out)
    if arguments.dry_run:
        own = run if arguments.resume and run.exists() else None
        describe(arguments.fields, arguments.data, init=arguments.init, own=own)
        return 0
    outcome = run_pretrain(
        arguments.fields,
        arguments.data,
        arguments.out,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        init=arguments.init,
        callbacks=report_callbacks,
    )
    if is_main() and run.report_file.is_file():
        say(f"report {run.report_file}")
    return outcome.exit_code


def parse_pretrain(args: Sequence[str]) -> PretrainArguments:
    """Arguments of `lamina pretrain`: the recipe, then --config, then the options given.

    Raises:
        LaminaError: in one line, for arguments that cannot be used.
    """
    args = long_names(args)
    start = with_config(_starting_recipe(args), args)
    default = PretrainArguments(data=tyro.MISSING, out=tyro.MISSING, fields=start.recipe)
    parsed = parse(PretrainArguments, args, "lamina pretrain", default)
    start.check(parsed.fields)
    return parsed


def _starting_recipe(args: Sequence[str]) -> Recipe:
    """The recipe that is named; on a resume the run's own."""
    name, out = peek(args, "--recipe"), peek(args, "--out") or ""
    if "--resume" not in args or not Path(out).exists():
        return named_recipe(name or "mae")
    from lamina.api import starting_recipe

    return starting_recipe(name, out, resume=True)


def _print_help() -> None:
    console = make_console()
    mae = named_recipe("mae")
    table = Table("option", "default", "", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    texts = field_texts(PretrainArguments)
    for name, value in _FLAGS.items():
        table.add_row(_flag(name) + value, "mae" if name == "recipe" else "", texts[name])
    table.add_row("--help-all", "", "List every field of the recipe by its dotted name.")
    for name, dotted in SHORT_NAMES.items():
        group, _, field = dotted.partition(".")
        options = getattr(mae, group)
        default, kind = getattr(options, field), cast(type, type(options))
        table.add_row(_flag(name), "" if default is None else str(default), field_texts(kind)[field])
    console.print(_USAGE, markup=False)
    console.print(table)
    console.print(_END, markup=False)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
