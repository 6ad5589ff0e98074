"""The parameters behind a path or a name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from lamina.core.errors import LaminaError
from lamina.data.query import parse_query, query_values, split_query


@dataclass(frozen=True)
class Options:
    size: int = 4
    grey: bool = False
    label: str | None = None


@pytest.mark.parametrize(
    ("spec", "path", "query"),
    [
        ("a.csv", "a.csv", ""),
        ("a.csv?label=x&image=y", "a.csv", "label=x&image=y"),
        ("sample:photos?crop=4", "sample:photos", "crop=4"),
        ("photos/?scale=0:100", "photos/", "scale=0:100"),
        ("img?.png", "img?.png", ""),
        ("img?.csv?label=x", "img?.csv", "label=x"),
        ("a.csv?label=", "a.csv", "label="),
        ("a?1=b.png", "a?1=b.png", ""),
    ],
)
def test_a_path_and_its_parameters(spec: str, path: str, query: str) -> None:
    assert split_query(spec) == (path, query)


def test_a_path_that_is_there_is_a_path(tmp_path: Path) -> None:
    file = tmp_path / "a.csv?label=x"
    assert split_query(str(file)) == (str(tmp_path / "a.csv"), "label=x")
    file.touch()
    assert split_query(str(file)) == (str(file), "")
    assert split_query(f"{file}?image=y") == (str(file), "image=y")


def test_values_by_the_types_of_the_fields() -> None:
    assert parse_query("", Options) == Options()
    assert parse_query("size=32&grey=1&label=a%26b+c%3D", Options) == Options(32, True, "a&b+c=")
    assert parse_query(split_query("t.csv?label=50%25%3F=#")[1], Options).label == "50%?=#"
    assert query_values("label=a,b;c&image=") == {"label": "a,b;c", "image": ""}


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("crop=1", "a table has no parameter 'crop'; take grey, label, size"),
        ("size=x", "size of a table is a whole number, not 'x'"),
        ("size=", "not ''"),
        ("size=-1", "not '-1'"),
        ("size=1&size=2", "'size' is given twice"),
        ("size", "'size' is no parameter; write name=value"),
        ("a\x1b=1", "no parameter .a.*x1b"),
    ],
)
def test_one_line_for_what_is_no_parameter(query: str, words: str) -> None:
    with pytest.raises(LaminaError, match=words) as error:
        parse_query(query, Options, "a table")
    assert "\n" not in str(error.value)
