"""Which package may import which, and the page that says so.

    python tools/architecture.py            # writes docs/architecture.md
    python tools/architecture.py --check    # only says whether it is up to date

`FLOORS` is the only place where the order of the packages stands: tests/docs/test_layering.py reads it too.
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
    Floor("What every package uses: values, files, random numbers, messages", ("core",)),
    Floor(
        "The parts of a method; images; the training of any module",
        ("masking", "encoder", "fusion", "decoder", "losses", "targets", "data", "train"),
    ),
    Floor("A forward made of parts; tokenizers", ("mim", "supervised", "tokenizer")),
    Floor("A method with a forward of its own", ("cmae",)),
    Floor("What a run depends on, as one value, and the method that is built from it", ("recipes",)),
    Floor("The methods of the field; runs on disk; runs that are planned", ("methods", "runs", "plan")),
    Floor("Weights of other tools, in and out", ("interop",)),
    Floor("Frozen features, and what kNN and a linear probe make of them", ("features",)),
    Floor("Analyses of an encoder", ("analyze",)),
    Floor("What is measured and kept beside a training", ("callbacks",)),
    Floor("From a recipe and images to a trained run", ("pretraining",)),
    Floor("Protocols of evaluation; trained tokenizers", ("evaluate", "tokenizer_training")),
    Floor("Experiments made of everything below", ("studies",)),
    Floor("Pages", ("report",)),
    Floor("From Python", ("api",)),
    Floor("The command line", ("cli", "__main__"), together=True),
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
        "unless the table says so (`tests/docs/test_layering.py`). Names of `lamina` itself are public.",
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
