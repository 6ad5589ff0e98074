"""The command line: the only place where a word names a function."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Literal

from rich.table import Table

from lamina.analyze.catalog import ANALYSES
from lamina.core.console import make_console
from lamina.core.errors import LaminaError
from lamina.core.terminal import finish_output, take_closed_descriptors, tolerant_output, why
from lamina.core.text import printable
from lamina.data.samples.catalog import sample_names

# torch and timm take seconds to import: what needs them is imported when a verb is run.

VERBS = {
    "pretrain": "pre-train on a folder of images",
    "evaluate knn": "k nearest neighbours beside two baselines",
    "evaluate linear": "linear probe beside two baselines",
    "evaluate linear-mae": "MAE's linear probe: LARS, random crops",
    "evaluate attentive": "one learned query on frozen patches",
    "evaluate finetune": "end-to-end fine-tuning on labels",
    "evaluate fewshot": "few labels: n of each class, 1 %, 10 %",
    "evaluate robustness": "corrupted images, ImageNet-C, -A, -R, -Sketch",
    "evaluate segment": "semantic segmentation: linear, UperNet, DPT, kNN",
    "evaluate detect": "boxes and masks of objects: ViTDet's Mask R-CNN",
    "evaluate all": "several models by several protocols, one table",
    "reconstruct": "let a run fill in hidden patches of images",
    "embed": "one feature vector per image",
    "data check": "read every image and list what cannot be read",
    "report": "the page of a run, or of several side by side",
    "export": "hand the encoder over to timm",
    **{f"analyze {row.name}": row.help for row in ANALYSES},
    "study feature-bias": "which layers pixels, features and labels ask for",
    "study pair": "MAE and PixMIM, with and without MFF",
    "study fusion": "where to fuse, and how",
    "tokenizer train": "a discrete tokenizer of one's own images, for BEiT",
    "inspect": "what a file or folder is, and which of its weights would be used",
    "methods": "every method with its parts, a line each",
    "recipes": "every recipe that --recipe takes, a line each",
    "demo": "a small real run on photographs, with its report",
}

PRINTED = (
    *("evaluate knn", "evaluate linear", "evaluate fewshot", "evaluate robustness", "data check"),
    *("inspect", "methods", "recipes", "help", "--help", "-h", "--version"),
)
"""Verbs whose result is what they print: where it cannot be printed, they end with exit code 2. Others keep
theirs in files."""

TRAINED: dict[str, Literal["linear-mae", "attentive", "finetune"]] = {
    "evaluate linear-mae": "linear-mae",
    "evaluate attentive": "attentive",
    "evaluate finetune": "finetune",
}

EXAMPLES = """\
lamina pretrain photos/ --out runs/mff                        # MAE with Multi-level Feature Fusion
lamina pretrain photos/ --out runs/mae --fusion none          # its fair twin
lamina pretrain photos/ --out runs/mff --resume               # go on exactly where it stopped
lamina evaluate linear runs/mff labelled/
lamina report runs/mff runs/mae --out compare.html"""

COMMON = {
    "encoder": "timm name of a VisionTransformer or Eva",
    "image_size": "side, or height and width, in px",
    "patch_size": "side of a patch in px",
    "in_chans": "channels of the images",
    "mean": "channel means on [0, 1]: numbers, or auto to measure them",
    "std": "channel standard deviations: numbers, or auto",
    "fusion": "mff, or none for the plain method",
    "mask_ratio": "share of the patches that is hidden",
    "epochs": "passes over the images",
    "max_steps": "length in steps, in place of epochs",
    "batch_size": "images per step, over all ranks and micro-batches",
    "base_lr": "learning rate for 256 images; scaled by batch_size / 256",
    "workers": "processes that read images",
    "device": "auto, cpu, cuda, ...",
    "precision": "fp32, bf16 or fp16",
    "seed": "of weights, order, crops, masks and drop path",
    "checkpoint_every_steps": "beside a checkpoint every 15 minutes and at the end",
}


PRETRAIN_USAGE = f"""\
usage: lamina pretrain DATA --out RUN [options]

DATA is a folder (searched in depth), a .txt list, a quoted glob, or a sample:
{sample_names()}.
RUN is a new folder; everything about the run is kept in it.
"""

PRETRAIN_END = """
Everything else has a dotted name, such as --fusion.layers 0 2 11 or --optim.weight-decay 0.1.
Exit codes: 0 done, 2 wrong arguments or data (too many bad files among them, or a data worker that died),
70 too many non-finite steps (go on with --resume and another --base-lr, --optim.clip-grad or --precision),
75 interrupted by a signal (Ctrl-C, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU), with the step saved: go on
with --resume. The same signal a second time ends it at once, unsaved."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code.

    0 done; 1 so many images cannot be read that a training stops (`data check`, `embed`); 2 wrong arguments
    or data, or a file that cannot be read or written; 70 too many non-finite steps; 75 interrupted by a
    signal, 130 by Ctrl-C outside of a training, with a line on what was saved.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    take_closed_descriptors()
    with tolerant_output():
        try:
            code = _code(args)
        finally:
            lost = finish_output()
        if lost is None or isinstance(lost, BrokenPipeError):  # a reader that has seen enough
            return code
        _complain(f"standard output could not be written ({why(lost)}); what was printed is incomplete")
        printed = not args or {args[0], " ".join(args[:2])} & set(PRINTED)
        return code or (2 if printed else 0)


def _code(args: list[str]) -> int:
    """Run one verb and say what it was that went wrong."""
    try:
        return _run(args)
    except LaminaError as error:
        _complain(_with_notes(error, str(error)))
        return error.exit_code
    except OSError as error:
        said = ": ".join(str(part) for part in (error.filename, error.strerror) if part) or str(error)
        _complain(_with_notes(error, said))
        return 2
    except KeyboardInterrupt as stop:
        notes = getattr(stop, "__notes__", ["give the same command again"])
        asked = getattr(stop, "signal", None)
        _complain("; ".join(["interrupted" if asked is None else f"interrupted by {asked.name}", *notes]))
        return 130 if asked is None else 75


def _with_notes(error: Exception, sentence: str) -> str:
    """The sentence, and what was noted on the way, such as where the last step is saved."""
    return "; ".join([sentence, *getattr(error, "__notes__", [])])


def _complain(sentence: str) -> None:
    """One line on stderr, under torchrun from each rank that has something to say."""
    rank = int(os.environ.get("RANK", "0"))
    prefix = f"rank {rank}: " if rank else ""
    print(f"lamina: {prefix}{printable(' '.join(sentence.split()))}", file=sys.stderr)


def _run(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        _print_overview()
        return 0
    if args[0] == "--version":
        print(version("lamina"))
        return 0
    name, rest = _verb(args)
    from lamina.train.signals import raised_signals

    with raised_signals():
        return _run_verb(name, rest)


def _run_verb(name: str, rest: list[str]) -> int:
    if name == "pretrain":
        return _pretrain(rest)
    if name in TRAINED:
        return _evaluate_by_training(TRAINED[name], rest)
    if name in ("evaluate segment", "evaluate detect"):
        return _evaluate_dense(name, rest)
    if name.startswith("analyze "):
        from lamina.cli.analyze import analyze

        return analyze(name.removeprefix("analyze "), rest)
    from lamina.cli.parse import parse_call

    return parse_call(_function(name), rest, f"lamina {name}")()


def _pretrain(args: list[str]) -> int:
    from lamina.cli.parse import parse_pretrain
    from lamina.cli.pretrain import pretrain

    if {"-h", "--help"} & set(args):
        _print_pretrain_help()
        return 0
    return pretrain(parse_pretrain(["--help" if a == "--help-all" else a for a in args]))


def _evaluate_by_training(protocol: Literal["linear-mae", "attentive", "finetune"], args: list[str]) -> int:
    from lamina.cli.evaluate_trained import evaluate_by_training
    from lamina.cli.parse_protocol import parse_protocol

    return evaluate_by_training(protocol, parse_protocol(protocol, args))


def _evaluate_dense(name: str, args: list[str]) -> int:
    from lamina.cli.evaluate_dense import detect, segment

    return segment(args) if name == "evaluate segment" else detect(args)


def _function(name: str) -> Callable[..., int]:
    from lamina.cli import evaluate as commands_evaluate
    from lamina.cli import evaluate_trained as commands_downstream
    from lamina.cli import output as telling
    from lamina.cli import pretrain as commands
    from lamina.cli import study as commands_study
    from lamina.cli.demo import demo

    functions: dict[str, Callable[..., int]] = {
        "evaluate knn": commands_evaluate.evaluate_knn,
        "evaluate linear": commands_evaluate.evaluate_linear,
        "evaluate fewshot": commands_downstream.fewshot,
        "evaluate robustness": commands_downstream.robustness,
        "evaluate all": commands_downstream.compare_all,
        "reconstruct": commands.reconstruct,
        "embed": commands.embed,
        "data check": commands.data_check,
        "report": commands.report,
        "export": commands.export,
        "study feature-bias": commands_study.study_bias,
        "study pair": commands_study.study_pair,
        "study fusion": commands_study.study_fusion,
        "tokenizer train": commands.tokenizer_train,
        "inspect": telling.inspect,
        "methods": telling.methods,
        "recipes": telling.recipes,
        "demo": demo,
    }
    return functions[name]


def _verb(args: list[str]) -> tuple[str, list[str]]:
    """The verb, of one word or two, and its arguments."""
    for words in (2, 1):
        name = " ".join(args[:words])
        if name in VERBS and len(args) >= words:
            return name, args[words:]
    group = [name.split()[1] for name in VERBS if name.startswith(f"{args[0]} ")]
    if group:
        raise LaminaError(f"lamina {args[0]} needs one of: {', '.join(group)}")
    raise LaminaError(f"there is no verb {args[0]!r}; `lamina --help` lists them")


def _print_overview() -> None:
    console = make_console()
    console.print(
        "Pre-train plain Vision Transformers by masked image modelling, with Multi-level Feature Fusion.\n"
    )
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    for name, what in VERBS.items():
        table.add_row(f"lamina {name}", what)
    console.print(table)
    console.print(f"\n{EXAMPLES}\n\nEach verb has its own --help.", markup=False, soft_wrap=True)


def _print_pretrain_help() -> None:
    from lamina.core.config import flatten, to_mapping
    from lamina.methods.catalog import recipe
    from lamina.recipes.short_names import SHORT_NAMES

    console = make_console()
    defaults = flatten(to_mapping(recipe("mae")))
    table = Table("option", "default", "", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for flag, default, what in _run_options():
        table.add_row(flag, default, what)
    for name, what in COMMON.items():
        table.add_row(f"--{name.replace('_', '-')}", _show(defaults[SHORT_NAMES[name]]), what)
    console.print(PRETRAIN_USAGE, markup=False)
    console.print(table)
    console.print(PRETRAIN_END, markup=False)


def _run_options() -> list[tuple[str, str, str]]:
    return [
        ("--recipe NAME", "mae", f"what to start from: {', '.join(_recipe_names())}"),
        ("--config FILE", "", "YAML with fields of the recipe; options given beside it win"),
        ("--resume", "", "go on with RUN exactly where it was, or start it"),
        ("--overwrite", "", "replace RUN, once the new run has taken its first step"),
        ("--init FILE", "", "what the encoder starts from: a run, an export, others' weights, timm/NAME"),
        ("--dry-run", "", "print the resolved recipe, steps and memory, and stop"),
        ("--help-all", "", "every field of the recipe, by its dotted name"),
    ]


def _recipe_names() -> list[str]:
    """Names without the sizes spelled out five times."""
    from lamina.methods.catalog import recipes

    names = [n for n in recipes() if n.rpartition("-")[2] not in ("ti", "s", "l", "h", "demo")]
    return [f"{n[:-2]}-{{ti,s,b,l,h}}" if n.endswith("-b") else n for n in names]


def _show(value: object) -> str:
    return "" if value is None else str(value)
