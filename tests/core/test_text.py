"""Names and messages of others can neither steer a terminal, nor reorder a line, nor become a formula."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.table import Table
from safetensors.torch import save_file

from lamina.cli.entry import main
from lamina.core.console import make_console
from lamina.core.text import csv_cell, printable, printable_lines, some_of

HOSTILE = "\N{ESCAPE}[2K\N{ESCAPE}]0;title\a\N{RIGHT-TO-LEFT OVERRIDE}gpj\N{LINE SEPARATOR}\x9b1A\udcff"


def hidden(text: str) -> set[str]:
    """What is in a text that a terminal would not show as a character of its own."""
    kinds = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    return {c for c in text if unicodedata.category(c) in kinds and c != "\n"}


def test_every_character_is_shown_or_spelled_out() -> None:
    blocks = [(0, 0x3100), (0xD7F0, 0xE010), (0xFE00, 0x1_0100), (0xE_0000, 0xE_0100)]
    for code in (code for block in blocks for code in range(*block)):
        shown = printable(chr(code))
        assert not hidden(shown), hex(code)
        assert "\n" not in shown
    kept = "é \N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{IDEOGRAPHIC SPACE}漢字 \N{GRINNING FACE}"
    assert printable(kept) == kept
    assert printable("a\nb\t\x1b") == r"a\nb\t\x1b"
    assert printable_lines("a\nb\x1b") == "a\nb\\x1b"
    assert printable("\udcff") == r"\udcff"


@pytest.mark.parametrize("terminal", [False, True])
def test_a_console_writes_no_escape_but_its_own(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm-256color")
    out = io.StringIO()
    console = make_console(file=out, width=200)
    table = Table("name", title="a table", title_style="bold red")
    table.add_row(HOSTILE)
    console.print(table)
    console.print(HOSTILE, markup=False, soft_wrap=True)
    console.print(f"{HOSTILE} in a line")
    text = out.getvalue()
    assert text.count(r"\x1b[2K") == 3
    assert hidden(text) <= ({"\x1b"} if terminal else set())
    assert not {"\x1b[2K", "\x1b]0;"} & {text[i : i + 4] for i in range(len(text))}
    assert terminal == ("\x1b[1;31m" in text)  # the title's own colour


def test_errors_and_tables_of_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = HOSTILE.replace("\N{LINE SEPARATOR}", "")
    folder = tmp_path / f"{name}-folder"
    folder.mkdir()
    for file in (f"{name}.png", "good.png"):
        Image.new("RGB", (16, 16)).save(folder / file)
    (folder / f"bad{name}.png").write_bytes(b"no image")
    (tmp_path / f"list{name}.txt").write_bytes(b"\xff\n")
    weights = {f"blocks.0.{HOSTILE}".encode("utf-8", "replace").decode(): torch.zeros(2)}
    save_file(weights, tmp_path / "a.safetensors")
    calls = [
        ["data", "check", str(folder)],
        ["data", "check", str(tmp_path / f"list{name}.txt")],
        ["inspect", "a.safetensors"],
        ["inspect", f"{name}.pth"],
        ["report", str(folder)],
        ["export", str(folder), "--out", f"{name}.safetensors"],
        ["embed", "a.safetensors", ".", "--out", f"{name}.txt"],
        ["pretrain", str(tmp_path / f"nothing{name}"), "--out", str(tmp_path / f"run{name}")],
        [f"verb{name}"],
    ]
    for call in calls:
        main(call)
        printed = capsys.readouterr()
        assert not hidden(printed.out + printed.err), call
        assert printed.out + printed.err


def test_cells_are_no_formulas(tmp_path: Path) -> None:
    for text in ("=1+1", "+1", "-1", "@sum(a)", "\tx", "\rx"):
        assert csv_cell(text) == f"'{text}"
    for text in ("a=b", "", "1", "é", "'x"):
        assert csv_cell(text) == text
    for label in ("@class", "b"):
        (tmp_path / "images" / label).mkdir(parents=True)
        Image.new("RGB", (16, 16), (99, 0, 0)).save(tmp_path / "images" / label / "1.png")
    (tmp_path / "list.txt").write_text("=cmd.png\n")
    Image.new("RGB", (16, 16)).save(tmp_path / "=cmd.png")
    assert (
        main(["embed", "untrained:test_vit", str(tmp_path / "images"), "--out", str(tmp_path / "a.csv")]) == 0
    )
    rows = list(csv.reader((tmp_path / "a.csv").read_text().splitlines()))[1:]
    assert [row[:2] for row in rows] == [["'@class/1.png", "'@class"], ["b/1.png", "b"]]
    assert any(float(cell) < 0 for cell in rows[0][2:])  # numbers stay numbers
    assert json.dumps(rows)


def test_the_first_of_many_names_and_how_many_more_there_are():
    assert some_of(["a", "b\x1b"], 2) == r"a, b\x1b"
    assert some_of(dict.fromkeys("abcde"), 3) == "a, b, c and 2 more"
