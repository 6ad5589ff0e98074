"""The verb `lamina pretrain`, and its short help."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tyro

from lamina.cli.arguments import PretrainArguments, given_fields
from lamina.cli.config_file import with_config
from lamina.cli.output import say
from lamina.cli.parse import long_names, parse, peek
from lamina.cli.short_help import METHOD_NAMES, print_short_help
from lamina.core.durations import parse_duration
from lamina.data.samples.catalog import sample_names
from lamina.methods.catalog import recipe as named_recipe
from lamina.plan.options import Fitting, fitting_of
from lamina.recipes.recipe import Recipe

_FLAGS = {
    "recipe": " NAME",
    "config": " FILE",
    "time": " 2h",
    "resume": "",
    "overwrite": "",
    "init": " FILE",
    "dry_run": "",
}
"""The options that are no fields of the recipe, and the values that they take."""
_USAGE = f"""\
usage: lamina pretrain DATA [--out RUN] [options]

DATA is a folder (searched in depth), a .txt list, a quoted glob, tar or zip
files, these or a folder at a remote (s3://, gs://, https://, hf://), a table
(.csv, .parquet), a dataset of Hugging Face (hf:org/name), or a sample:
{sample_names()}.
RUN is a new folder; everything about the run is kept in it. By default runs/NAME,
named after the images: runs/photos for photos/.
"""
_END = f"""{METHOD_NAMES}
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
        print_short_help(_USAGE, PretrainArguments, _FLAGS, _END)
        return 0
    arguments, fitting = parse_pretrain(["--help" if arg == "--help-all" else arg for arg in args])
    from lamina.api import report_callbacks
    from lamina.cli.dry_run import describe
    from lamina.pretraining import run_pretrain
    from lamina.runs.run import Run
    from lamina.train.distributed import is_main

    run = Run(arguments.folder)
    if arguments.dry_run:
        own = run if arguments.resume and run.exists() else None
        describe(arguments.fields, arguments.data, init=arguments.init, own=own, fitting=fitting)
        return 0
    if arguments.out is None and is_main():
        say(f"the run is kept in {run.path}; --out names another folder")
    outcome = run_pretrain(
        arguments.fields,
        arguments.data,
        arguments.folder,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        init=arguments.init,
        callbacks=report_callbacks,
        fitting=fitting,
    )
    if is_main() and run.report_file.is_file():
        say(f"report {run.report_file}")
    return outcome.exit_code


def parse_pretrain(args: Sequence[str]) -> tuple[PretrainArguments, Fitting]:
    """Arguments of `lamina pretrain`: the recipe, then --config, then the options given; and what of the
    recipe is left to be chosen.

    Raises:
        LaminaError: in one line, for arguments that cannot be used.
    """
    args = long_names(args)
    start = with_config(_starting_recipe(args), args)
    parsed = _parse(args, start.recipe)
    start.check(parsed.fields)
    seconds = None if parsed.time is None else parse_duration(parsed.time)
    given = start.fields | frozenset(given_fields(args))
    return parsed, fitting_of(given, parsed.recipe, parsed.init, seconds)


def _parse(args: Sequence[str], recipe: Recipe) -> PretrainArguments:
    """The arguments with the recipe that their options are given for."""
    default = PretrainArguments(data=tyro.MISSING, fields=recipe)
    return parse(PretrainArguments, args, "lamina pretrain", default)


def _starting_recipe(args: Sequence[str]) -> Recipe:
    """The recipe that is named; on a resume the run's own."""
    name = peek(args, "--recipe")
    named = named_recipe(name or "mae")
    if "--resume" not in args:
        return named
    out = peek(args, "--out") or _parse(args, named).folder
    if not Path(out).exists():
        return named
    from lamina.api import starting_recipe

    return starting_recipe(name, out, resume=True)
