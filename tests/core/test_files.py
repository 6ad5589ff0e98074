"""Files are whole or as they were, and a target that cannot be written is found beforehand."""

import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from lamina.cli.entry import main
from lamina.core.errors import LaminaError
from lamina.core.files import check_writable, replacing, write_atomically


def test_a_file_is_replaced_and_nothing_stays_beside_it(tmp_path):
    file = tmp_path / "new" / "a.txt"
    write_atomically(file, "žluť")
    write_atomically(file, b"second")
    assert [(f.name, f.read_bytes()) for f in file.parent.iterdir()] == [("a.txt", b"second")]


def test_after_an_error_the_old_file_is_there_and_nothing_else(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("old")

    def fail():
        with replacing(file) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [("a.txt", "old")]


def test_a_writable_target_is_left_as_it_is(tmp_path):
    check_writable(tmp_path / "new" / "a.txt")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("name", ["folder", "file/a.txt", "file/deeper/a.txt"])
def test_a_target_that_cannot_be_written_gets_one_line(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(LaminaError, match="cannot be written") as caught:
        check_writable(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_an_error_of_a_full_disk_names_the_file(tmp_path: Path) -> None:
    """A write that fails on an open file names none; safetensors raises an error of its own kind."""
    for error in (
        OSError(28, "No space left on device"),
        SafetensorError("I/O error: No space left on device"),
    ):
        with pytest.raises(OSError, match="No space left on device") as caught, replacing(tmp_path / "x.npz"):
            raise error
        assert caught.value.filename == str(tmp_path / "x.npz")
    assert list(tmp_path.iterdir()) == []


def test_what_killed_processes_left_beside_a_file_is_removed(tmp_path: Path) -> None:
    old, young, mine = (tmp_path / name for name in (".a.json.1.tmp", ".a.json.2.tmp", ".b.json.1.tmp"))
    for file in (old, young, mine):
        file.write_text("half")
    for file in (old, mine):
        os.utime(file, (0, 0))
    write_atomically(tmp_path / "a.json", "whole")
    assert sorted(f.name for f in tmp_path.iterdir()) == [young.name, mine.name, "a.json"]


def test_a_full_disk_at_the_first_file_of_a_run_is_one_line_and_no_dead_end(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    """Once there is room, the same command runs, without --resume or --overwrite."""
    arguments = ["pretrain", "sample:photos?crop=16&most=2", "--out", str(tmp_path / "run")]
    arguments += ["--recipe", "mae-small", "--image-size", "16", "--patch-size", "4", "--encoder.depth", "1"]
    arguments += ["--fusion", "none", "--max-steps", "1", "--batch-size", "4", "--monitor.images", "0"]
    arguments += ["--workers", "0", "--device", "cpu"]

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("lamina.core.files.sync", full)
        assert main(arguments) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path}/run/recipe.yaml: No space left on device" in said
    assert main(arguments) == 0
