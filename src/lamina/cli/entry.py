"""The command line from what was typed to the exit code: it finds the verb, runs it and prints its errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from rich.table import Table

from lamina.cli.old_flags import with_new_flags
from lamina.cli.verbs import VERBS, Verb
from lamina.core.config import did_you_mean
from lamina.core.console import make_console
from lamina.core.errors import LaminaError
from lamina.core.terminal import finish_output, take_closed_descriptors, tolerant_output, why
from lamina.core.text import printable

EXAMPLES = """\
lamina pretrain photos/ --out runs/mff                        # MAE with Multi-level Feature Fusion
lamina pretrain photos/ --out runs/mae --fusion none          # the same without it, to compare
lamina pretrain photos/ --out runs/mff --resume               # continue exactly where it stopped
lamina evaluate linear runs/mff labelled/
lamina report runs/mff runs/mae --out compare.html"""

_HELP = ("-h", "--help", "help")


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
        if lost is None or isinstance(lost, BrokenPipeError):  # such as that of `| head`
            return code
        _print_error(f"standard output could not be written ({why(lost)}); what was printed is incomplete")
        return code or (2 if _is_printed(args) else 0)


def _is_printed(args: list[str]) -> bool:
    """Whether the result of the command is what it prints, so that no file has it."""
    verb = _find(args)
    return verb.printed if verb is not None else not args or args[0] in (*_HELP, "--version")


def _code(args: list[str]) -> int:
    """Run one verb and print what went wrong."""
    try:
        return _run(args)
    except LaminaError as error:
        _print_error(str(error), *_notes(error))
        return error.exit_code
    except OSError as error:
        parts = ": ".join(str(part) for part in (error.filename, error.strerror) if part)
        _print_error(parts or str(error), *_notes(error))
        return 2
    except KeyboardInterrupt as stop:
        signal = getattr(stop, "signal", None)
        interrupted = "interrupted" if signal is None else f"interrupted by {signal.name}"
        _print_error(interrupted, *(_notes(stop) or ["give the same command again"]))
        return 130 if signal is None else 75


def _notes(error: BaseException) -> list[str]:
    """What was noted on the way, such as where the last step is saved."""
    return getattr(error, "__notes__", [])


def _print_error(*parts: str) -> None:
    """One line on stderr; under torchrun with the rank that prints it."""
    rank = int(os.environ.get("RANK", "0"))
    prefix = f"rank {rank}: " if rank else ""
    print(f"lamina: {prefix}{printable(' '.join('; '.join(parts).split()))}", file=sys.stderr)


def _run(args: list[str]) -> int:
    if not args or args[0] in _HELP:
        _print_overview()
        return 0
    if args[0] == "--version":
        print(version("lamina"))
        return 0
    verb = _find(args)
    if verb is None:
        raise LaminaError(_unknown(args))
    given, notes = with_new_flags(verb.name, args[len(verb.name.split()) :])
    for note in notes:
        _print_error(note)
    from lamina.train.signals import raised_signals

    with raised_signals():
        return _run_verb(verb, given)


def _run_verb(verb: Verb, args: list[str]) -> int:
    function = verb.load()
    if verb.parses:
        return int(function(verb.name.split()[-1], args))
    from lamina.cli.parse import parse_call

    return parse_call(function, args, f"lamina {verb.name}")()


def _find(args: Sequence[str]) -> Verb | None:
    """The verb that the first words are, of two words or of one."""
    names = [" ".join(args[:2]), *args[:1]]
    return next((verb for name in names for verb in VERBS if verb.name == name), None)


def _unknown(args: list[str]) -> str:
    """The error for words that are no verb, with the nearest verb."""
    group = [verb.name.split()[1] for verb in VERBS if verb.name.startswith(f"{args[0]} ")]
    if group:
        near = did_you_mean(args[1], group) if len(args) > 1 else ""
        return f"lamina {args[0]} needs one of: {', '.join(group)}; {near}".rstrip("; ")
    near = did_you_mean(args[0], [verb.name.split()[0] for verb in VERBS])
    return f"there is no verb {args[0]!r}; {near}`lamina --help` lists them"


def _print_overview() -> None:
    console = make_console()
    console.print(
        "Pre-train plain Vision Transformers by masked image modelling, with Multi-level Feature Fusion.\n"
    )
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    for verb in VERBS:
        table.add_row(f"lamina {verb.name}", verb.help)
    console.print(table)
    console.print(
        f"\n{EXAMPLES}\n\n`lamina VERB --help` explains each verb and its options.",
        markup=False,
        soft_wrap=True,
    )
