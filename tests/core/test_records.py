"""JSON and YAML that come back are what was written, or are refused; nothing of a stranger's grows without end."""

import json
import math
import resource

import pytest
import yaml

from lamina.core.plain_files import DamagedFile
from lamina.core.records import parse_json, parse_yaml, read_json, read_object, read_yaml, to_yaml, write_json

CONTENT = {"top1": 0.9125, "n": 12, "names": ["žluť", "b"], "none": None, "deep": {"a": [1, 2.5, True]}}
BILLION = "a: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"b{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)


def flips(data: bytes):
    for i in range(len(data)):
        for bit in (0, 2, 5, 7):
            yield data[:i] + bytes([data[i] ^ 1 << bit]) + data[i + 1 :]


def test_json_comes_back_and_is_plain_json_to_others(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, CONTENT)
    assert read_json(file) == CONTENT
    others = json.loads(file.read_text())
    assert {name: others[name] for name in CONTENT} == CONTENT
    write_json(file, {"nan": math.nan, "odd name": "\udce4"})  # a file's name that is no UTF-8
    assert math.isnan(read_json(file)["nan"])
    assert read_json(file)["odd name"] == "\udce4"


def test_no_flipped_bit_and_no_cut_changes_what_json_says(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, CONTENT)
    data, passed = file.read_bytes(), 0
    for damaged in (*flips(data), *(data[:n] for n in range(len(data)))):
        file.write_bytes(damaged)
        try:
            found = read_json(file)
        except DamagedFile:
            continue
        passed += 1
        assert {name: found[name] for name in CONTENT} == CONTENT  # white space, or the digest's own name
    assert passed < len(data)


def test_no_flipped_bit_and_no_cut_changes_what_yaml_says(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(to_yaml(CONTENT))
    assert yaml.safe_load(file.read_text()) == read_yaml(file) == CONTENT
    data = file.read_bytes()
    for damaged in (*flips(data), *(data[:n] for n in range(1, len(data)))):
        file.write_bytes(damaged)
        try:
            found = read_yaml(file)
        except DamagedFile:
            continue
        # All that passes is a flip in the first line, which makes it another comment or key, or a cut in it.
        assert found is None or {name: found[name] for name in CONTENT} == CONTENT


def test_files_of_before_there_were_digests_are_taken(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(CONTENT))
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(CONTENT))
    assert read_json(tmp_path / "a.json") == read_yaml(tmp_path / "a.yaml") == CONTENT


def test_a_yaml_file_that_was_edited_says_how_to_take_it(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(to_yaml(CONTENT).replace("n: 12", "n: 13"))
    with pytest.raises(DamagedFile, match="delete the first line"):
        read_yaml(file)
    file.write_text("".join(file.read_text().splitlines(keepends=True)[1:]))
    assert read_yaml(file) == CONTENT | {"n": 13}
    assert parse_yaml(to_yaml(CONTENT).replace("n: 12", "n: 13"), verify=False) == CONTENT | {"n": 13}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BILLION, "aliases make it too large"),
        ("a: &a {b: &b {c: *a}}", "part of"),
        ("a: &x {k: 1}\nb: &y {" + "<<: [" + ",".join(["*x"] * 400) + "]}\nc: [" + ",".join(["*y"] * 400) + "]",
         "aliases make it too large"),
        ("[" * 600, "nested too deeply"),
        ("when: 2001-99-99", "month"),
        ("n: " + "9" * 5000, "digits"),
        ("\x00", "no YAML"),
        ("a: [", "no YAML"),
    ],
    ids=["alias bomb", "alias of itself", "merge bomb", "deep", "date", "digits", "nul", "open"],
)  # fmt: skip
def test_yaml_of_a_stranger_is_refused_in_a_line(text, reason):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=reason):
        parse_yaml(text)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


@pytest.mark.parametrize(
    ("text", "reason"),
    [("[" * 200_000, "deeply"), ('{"a":' * 200_000, "deeply"), ("1" * 400, "400 digits"), ("\xff", "UTF-8"),
     ("{", "no JSON")],
)  # fmt: skip
def test_json_of_a_stranger_is_refused_in_a_line(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_json(text.encode("latin-1"))


def test_aliases_that_stay_small_are_read():
    assert parse_yaml("a: &a [1, 2]\nb: *a\n") == {"a": [1, 2], "b": [1, 2]}


def test_an_object_is_asked_for(tmp_path):
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(DamagedFile, match="holds a list, not an object"):
        read_object(tmp_path / "a.json")


def test_text_that_looks_like_a_list_of_numbers_stays_text(tmp_path):
    content = {"note": "[ 1, 2 ]", "numbers": [1, 2]}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content
