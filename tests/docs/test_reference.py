"""The generated pages of the documentation name every option and every verb, and explain each."""

import re

import reference

from lamina.core.config import flatten, to_mapping
from lamina.core.ranges import Range


def test_every_field_of_the_recipe_is_an_option_with_its_default_and_a_text():
    _, _, root = reference.ROOTS[0]
    found = {option.name: option for option in reference.options(root)}
    assert set(found) == set(flatten(to_mapping(root)))
    without = [
        name
        for *_, each in reference.ROOTS
        for option in reference.options(each)
        if not option.help
        for name in [option.name]
    ]
    assert not without, "options without a docstring below the field"
    assert found["masking.mask_ratio"].default == "`0.75`"
    assert found["masking.mask_ratio"].range == str(Range(0, 1, open_below=True, open_above=True))
    assert found["train.max_steps"].default == "unset"
    page = reference.options_page()
    assert all(f"`{name}`" in page for name in found)


def test_an_option_is_listed_by_the_name_that_its_command_takes():
    for heading, about, root in reference.ROOTS:
        verb = re.match(r"Of `lamina ((?:analyze|evaluate|study|tokenizer|pretrain) ?[\w-]*)", about)
        if verb is None:  # the options of a sample
            continue
        name = verb[1] if verb[1] in reference.verbs() else "study pair"
        said = reference.help_of(name, "--help-all" if name == "pretrain" else "--help")
        for option in reference.options(root):
            assert f"--{option.name.replace('_', '-')} " in said.replace(",", " ") + " ", (
                heading,
                option.name,
            )


def test_the_page_of_commands_holds_the_help_of_every_verb():
    page = reference.command_line_page()
    for verb in reference.verbs():
        assert f"## lamina {verb}\n\n```text\nusage: lamina {verb} " in page, verb
    assert "\x1b" not in page
