"""README and documentation say what is there: verbs, options, names and files that exist."""

import re
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name

import pytest
import reference

import lamina
from lamina.core.config import flatten, to_mapping
from lamina.evaluate.detect.recipes import detect_recipe
from lamina.evaluate.segment.recipes import segment_recipe
from lamina.recipes.recipe import Recipe

ROOT = Path(__file__).parents[2]
VERBS = reference.verbs()
GENERATED = {reference.FOLDER / name for name in reference.PAGES}
CHANGELOG = ROOT / "CHANGELOG.md"  # names what was, too: its links alone are checked
PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")} - GENERATED - {CHANGELOG})
# What these pages name is there once their example is added, which test_extend.py does.
EXAMPLES = {page for page in PAGES if page.parent.name == "extend"}
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))

each_page_of_what_is_there = pytest.mark.parametrize(
    "page", sorted({*PAGES} - EXAMPLES), ids=lambda page: str(page.relative_to(ROOT))
)


def commands(text: str) -> list[str]:
    """What follows `lamina` in the lines of a page that are commands, and in its inline code."""
    lines = re.findall(r"^ *(?:flock .*|torchrun .*-m )?lamina ([a-z].*)$", text, re.MULTILINE)
    return lines + re.findall(r"`lamina ([a-z][^`]*)`", text)


def test_every_verb_has_a_command_by_example():
    examples = commands((ROOT / "docs/commands.md").read_text())
    for verb in reference.verbs():
        assert any(re.match(rf"{verb}\b", line) for line in examples), verb


@each_page_of_what_is_there
def test_commands_name_verbs_that_exist(page):
    words = {verb.split()[0] for verb in reference.verbs()}
    pairs = {verb for verb in reference.verbs() if " " in verb}
    for command in commands(page.read_text()):
        first, *rest = re.split(r"[\s#|]+", command)
        assert first in words, command
        if any(pair.startswith(f"{first} ") for pair in pairs) and rest and re.fullmatch(r"[a-z-]+", rest[0]):
            assert f"{first} {rest[0]}" in pairs, command


@each_page_of_what_is_there
def test_names_in_the_python_examples_exist(page):
    text = page.read_text()
    for name in set(re.findall(r"\blamina\.(\w+)\(", text)):
        assert name in lamina.__all__, name
    for module, names in re.findall(r"^from (lamina[\w.]*) import (.+)$", text, re.MULTILINE):
        for name in re.sub(r"#.*", "", names).strip(" ()").split(","):
            assert hasattr(import_module(module), name.split(" as ")[0].strip()), (module, name)
    for path in re.findall(r"`(lamina(?:\.\w+)+)[`(]", text):
        assert resolve_name(path) is not None, path


def test_the_page_of_python_has_every_public_name_once():
    found = re.findall(r"^::: lamina\.(\w+)$", (ROOT / "docs/reference/python.md").read_text(), re.MULTILINE)
    assert sorted(found) == sorted(lamina.__all__)


@each_page
def test_dotted_options_are_options(page):
    """A switch is --name or --no-name: a word True or False after it is no value of it."""
    known = {
        name.replace("_", "-")
        for options in (Recipe(), segment_recipe(None, "linear"), detect_recipe(None))
        for name in (*flatten(to_mapping(options)), *to_mapping(options))
    }
    for option, name, word in re.findall(
        r"(--([a-z]+\.[a-z0-9.-]*[a-z0-9]))(?: (True|False)\b)?", page.read_text()
    ):
        group, _, field = name.partition(".")
        assert name in known or f"{group}.{field.removeprefix('no-')}" in known, option
        assert not word, (option, word)


@cache
def flags(verb: str) -> set[str]:
    """The options that a verb's help names."""
    more = ("--help-all",) if verb in ("pretrain", "plan") else ()
    text = "".join(reference.help_of(verb, flag) for flag in ("--help", *more))
    return set(re.findall(r"--[a-z][\w.-]*[a-z0-9]", text)) | {"--help"}


def verb_of(command: str) -> str:
    """The verb of a command, of two words where there is such a one."""
    return next((" ".join(words) for n in (2, 1) if " ".join(words := command.split()[:n]) in VERBS), "")


@each_page
def test_options_of_commands_are_options_of_their_verb(page):
    for command in commands(page.read_text().replace("\\\n", " ")):
        if verb := verb_of(command):
            given = re.findall(r"(?<=\s)--[a-z][\w.-]*[a-z0-9]", re.split(r"\s#|[|;&>]", command)[0])
            assert set(given) <= flags(verb), command


@each_page
def test_options_in_a_sentence_are_options_of_some_verb(page):
    known = set().union(*map(flags, VERBS)) | {"--version"}
    given = re.findall(r"`(--[a-z][\w.-]*[a-z0-9])[^`]*`", page.read_text())
    assert {option for option in given if "group." not in option} <= known


@pytest.mark.parametrize("page", [*PAGES, CHANGELOG], ids=lambda page: str(page.relative_to(ROOT)))
def test_linked_files_exist(page):
    for target in re.findall(r"\]\(((?!http)[^)#\s]+)[^)]*\)", page.read_text()):
        file = (page.parent / target).resolve()
        assert file.exists() or file in GENERATED, target
