"""The README says what is there: verbs that exist, names that can be imported."""

import re
from pathlib import Path

import lamina
from lamina.cli import VERBS
from lamina.downstream.detect import detect_recipe
from lamina.downstream.segment import segment_recipe
from lamina.options import flatten, to_mapping
from lamina.recipes import Recipe

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_every_verb_has_a_command():
    for verb in set(VERBS) - {"demo"}:
        assert re.search(rf"lamina {verb}\b", README), verb


def test_names_in_the_python_examples_exist():
    for name in set(re.findall(r"lamina\.(\w+)\(", README)):
        assert name in lamina.__all__, name


def test_dotted_options_in_the_docs_are_options():
    """A switch is --name or --no-name: a word True or False after it is no value of it."""
    known = {
        name.replace("_", "-")
        for options in (Recipe(), segment_recipe(None, "linear"), detect_recipe(None))
        for name in (*flatten(to_mapping(options)), *to_mapping(options))
    }
    for file in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for option, name, word in re.findall(
            r"(--([a-z]+\.[a-z0-9.-]*[a-z0-9]))(?: (True|False)\b)?", file.read_text()
        ):
            group, _, field = name.partition(".")
            assert name in known or f"{group}.{field.removeprefix('no-')}" in known, (file.name, option)
            assert not word, (file.name, option, word)


def test_linked_files_exist():
    for target in re.findall(r"\]\(((?!http)[^)#]+)\)", README):
        assert (ROOT / target).exists(), target
