"""The verb `lamina pretrain`, and its short help."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tyro
from rich.table import Table

from lamina.cli.arguments import PretrainArguments
from lamina.cli.config_file import with_config
from lamina.cli.output import say
from lamina.cli.parse import long_names, parse, peek
from lamina.core.config import flatten, to_mapping
from lamina.core.console import make_console
from lamina.data.samples.catalog import sample_names
from lamina.methods.catalog import recipe as named_recipe
from lamina.methods.catalog import recipes
from lamina.recipes.recipe import Recipe
from lamina.recipes.short_names import SHORT_NAMES

_COMMON = {
    "encoder": "timm name of a VisionTransformer or Eva",
    "image_size": "side, or height and width, of the training images in px",
    "patch_size": "side of a patch in px",
    "in_chans": "number of channels of the images",
    "mean": "channel means on [0, 1]: numbers, or auto to measure them",
    "std": "channel standard deviations: numbers, or auto to measure them",
    "fusion": "mff for Multi-level Feature Fusion, or none",
    "mask_ratio": "share of the patches that is masked",
    "epochs": "passes over the images",
    "max_steps": "number of steps, in place of epochs",
    "batch_size": "images per step, over all ranks and micro-batches",
    "base_lr": "learning rate at batch 256; it is scaled by batch_size / 256",
    "workers": "number of processes that read images",
    "device": "auto, cpu, cuda, cuda:1, mps, ...",
    "precision": "fp32, bf16 or fp16",
    "seed": "random seed for weights, data order, crops, masks and drop path",
    "checkpoint_every_steps": "also save every N steps (always: every 15 minutes and at the end)",
}
_USAGE = f"""\
usage: lamina pretrain DATA --out RUN [options]

DATA is a folder (searched in depth), a .txt list, a quoted glob, or a sample:
{sample_names()}.
RUN is a new folder; everything about the run is kept in it.
"""
_END = """
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
    defaults = flatten(to_mapping(named_recipe("mae")))
    table = Table("option", "default", "", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for flag, default, text in (
        ("--recipe NAME", "mae", f"method and schedule to start from: {', '.join(_recipe_names())}"),
        ("--config FILE", "", "YAML file with fields of the recipe; options of the command line override it"),
        ("--resume", "", "continue RUN exactly where it stopped; start it where there is none"),
        ("--overwrite", "", "replace RUN once the new run has taken its first step"),
        (
            "--init FILE",
            "",
            "initialise the encoder from a run, an export, third-party weights or timm/NAME",
        ),
        ("--dry-run", "", "print the complete recipe, the steps and the memory, and train nothing"),
        ("--help-all", "", "list every field of the recipe by its dotted name"),
    ):
        table.add_row(flag, default, text)
    for name, text in _COMMON.items():
        default = defaults[SHORT_NAMES[name]]
        table.add_row(f"--{name.replace('_', '-')}", "" if default is None else str(default), text)
    console.print(_USAGE, markup=False)
    console.print(table)
    console.print(_END, markup=False)


def _recipe_names() -> list[str]:
    """Names of recipes, the sizes of a method as one."""
    names = [name for name in recipes() if name.rpartition("-")[2] not in ("ti", "s", "l", "h", "demo")]
    return [f"{name[:-2]}-{{ti,s,b,l,h}}" if name.endswith("-b") else name for name in names]
