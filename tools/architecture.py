"""Which package may import which, and the page that says so.

    python tools/architecture.py            # writes docs/architecture.md
    python tools/architecture.py --check    # only says whether it is up to date

`FLOORS` is the only place where the order of the packages stands: tests/test_layering.py reads it too.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "lamina"
PAGE = ROOT / "docs" / "architecture.md"


@dataclass(frozen=True)
class Floor:
    """Packages, or single files, of one height in the building."""

    about: str
    names: tuple[str, ...]
    together: bool = False
    """Whether they may import each other."""


FLOORS = (
    Floor(
        "What everything stands on: values, files, random numbers, messages",
        (
            *("errors", "text", "console", "statistics", "batch", "tokens", "rng", "protocols", "options"),
            *("files", "modes", "terminal", "locking", "ranges", "plain_files", "records", "frozen"),
            *("init", "tensor_files", "choices"),
        ),
        together=True,
    ),
    Floor("Deterministic damage to images", ("corruptions",)),
    Floor(
        "The parts of a method, images, and the training of any module",
        ("masking", "encoder", "fusion", "decoder", "losses", "targets", "data", "train"),
    ),
    Floor("A forward made of parts", ("mim", "supervised")),
    Floor("Methods that need more than one forward", ("cmae", "filling", "monitor", "tokenizer")),
    Floor("The methods of the field, and what a run depends on", ("methods", "recipes")),
    Floor("From a recipe to a method", ("build",)),
    Floor("A folder with a state", ("memory", "resumable_folder")),
    Floor("A run on disk", ("runs",)),
    Floor("Weights of other tools, in and out", ("interop",)),
    Floor("Frozen features and what probes make of them", ("evaluate", "guides")),
    Floor("A look inside", ("analyze", "embedding")),
    Floor("Evaluations during training", ("watching",)),
    Floor("From a recipe and images to a trained run", ("pretraining",)),
    Floor("Protocols that train, and trained tokenizers", ("downstream", "tokenizing")),
    Floor("Experiments made of everything else", ("studies",)),
    Floor("The page of a run", ("report",)),
    Floor("From Python", ("api", "analyzing")),
    Floor(
        "The command line",
        (
            *("listing", "arguments", "arguments_downstream", "demo", "bars", "telling", "commands"),
            *("commands_evaluate", "commands_analyze", "commands_downstream", "commands_dense"),
            *("commands_study", "cli", "__main__"),
        ),
        together=True,
    ),
)


def about(file: Path) -> str:
    """The first line of a file's docstring; "" where it has none."""
    return (ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n")[0]


def package(file: Path) -> str:
    """The package at the top level of lamina, or the single file there, that a file belongs to."""
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def page() -> str:
    """docs/architecture.md: the floors from the top to the bottom, then each package's files."""
    text = [
        "# Architecture",
        "",
        "*This page is written by `python tools/architecture.py`.*",
        "",
        "A package imports only packages on lower floors; packages on one floor do not import each other",
        "unless the table says so (`tests/test_layering.py`). `lamina/__init__.py` names what is public.",
        "",
        "| floor | packages | what it is |",
        "|---|---|---|",
    ]
    for height, floor in reversed(list(enumerate(FLOORS))):
        names = ", ".join(f"`{name}`" for name in floor.names)
        beside = " (they may import each other)" if floor.together else ""
        text.append(f"| {height} | {names}{beside} | {floor.about} |")
    files: dict[str, list[Path]] = {}
    for file in sorted(SOURCE.rglob("*.py")):
        files.setdefault(package(file) if file.parent != SOURCE else "", []).append(file)
    for name, inside in files.items():
        text += ["", f"## {'lamina/' + name}", "", "| file | what it is |", "|---|---|"]
        text += [f"| `{file.relative_to(SOURCE)}` | {about(file)} |" for file in inside]
    return "\n".join(text) + "\n"


def main() -> int:
    if "--check" in sys.argv[1:]:
        current = PAGE.is_file() and PAGE.read_text() == page()
        print("docs/architecture.md is", "up to date" if current else "old: run python tools/architecture.py")
        return 0 if current else 1
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
