"""What Windows and macOS do otherwise, simulated: the functions of the operating system behave as they do there."""

import ast
import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

import lamina
import lamina.core.files
from helpers.options import TINY_NETWORK
from helpers.training import train
from lamina.core.errors import LaminaError
from lamina.core.files import portable_name, remove_folder, sync, write_atomically
from lamina.evaluate.compare.models import columns_of
from lamina.report.reconstructions import _names
from lamina.train import checkpoint

ROOT = Path(__file__).parents[2] / "src" / "lamina"


def as_windows(monkeypatch) -> None:
    """Folders cannot be opened, and only what was opened for writing can be synced."""
    real_open, real_fsync = os.open, os.fsync
    readable: set[int] = set()

    def opened(path, flags, *args, **kwargs):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        handle = real_open(path, flags, *args, **kwargs)
        (readable.discard if flags & (os.O_RDWR | os.O_WRONLY) else readable.add)(handle)
        return handle

    def synced(handle):
        if handle in readable:
            raise OSError(errno.EBADF, "Bad file descriptor")
        real_fsync(handle)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.delattr(os, "O_DIRECTORY")
    monkeypatch.setattr(shutil, "_use_fd_functions", False)  # as it removes folders where there is no dir_fd


def test_a_run_is_trained_and_resumed_where_folders_cannot_be_opened(tmp_path, monkeypatch):
    as_windows(monkeypatch)
    train(tmp_path / "run", checkpoint_every_steps=3)
    last = checkpoint.steps(tmp_path / "run" / "checkpoints")[-1]
    remove_folder(tmp_path / "run" / "checkpoints" / f"step-{last}")
    train(tmp_path / "run", resume=True)
    assert checkpoint.verify(tmp_path / "run" / "checkpoints" / f"step-{last}") is None


def test_a_file_system_that_syncs_no_folder_ends_no_run(tmp_path, monkeypatch):
    real = os.fsync

    def synced(handle):
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(handle)

    monkeypatch.setattr(os, "fsync", synced)
    sync(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.EIO, "I/O error")))
    with pytest.raises(OSError, match="I/O error"):  # a disk that fails is no such file system
        sync(tmp_path)


def held(monkeypatch, times: int) -> list[int]:
    """The next renames are refused, as on Windows while another program has the file open."""
    real, calls = os.replace, [0]

    def replace(source, target):
        calls[0] += 1
        if calls[0] <= times:
            raise PermissionError(errno.EACCES, "The process cannot access the file", str(target))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    return calls


def test_a_file_that_another_program_holds_is_tried_again_on_windows(tmp_path, monkeypatch):
    write_atomically(tmp_path / "a", "old")
    calls = held(monkeypatch, 3)
    monkeypatch.setattr(lamina.core.files, "os", FakeOs("nt"))
    write_atomically(tmp_path / "a", "new")
    assert ((tmp_path / "a").read_text(), calls) == ("new", [4])


def test_a_file_that_stays_held_and_a_refusal_elsewhere_are_errors(tmp_path, monkeypatch):
    write_atomically(tmp_path / "a", "old")
    calls = held(monkeypatch, 10**6)
    with pytest.raises(PermissionError):
        write_atomically(tmp_path / "a", "new")
    assert calls == [1]
    monkeypatch.setattr(lamina.core.files, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(lamina.core.files, "os", FakeOs("nt"))
    with pytest.raises(PermissionError):
        write_atomically(tmp_path / "a", "new")
    assert calls[0] > 2
    assert [f.name for f in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


class FakeOs:
    """The module `os` of another system; paths stay those of this one."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, attribute: str) -> object:
        return getattr(os, attribute)


def test_text_files_have_the_same_bytes_on_each_system():
    """Python writes each line feed as two bytes on Windows unless it is told not to, which has another digest."""
    for file in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            names = {keyword.arg for keyword in node.keywords}
            modes = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            writes = called.endswith(".write_text") or (
                called.split(".")[-1] in ("open", "fdopen") and bool({"w", "a", "x", "w+", "a+"} & set(modes))
            )
            writes = writes and "devnull" not in ast.unparse(node)
            assert not writes or "newline" in names, f"{file.name}: {ast.unparse(node)}"


def test_dates_are_told_without_what_windows_does_not_know():
    for file in sorted(ROOT.rglob("*.py")):
        assert "%-" not in file.read_text().replace("%-%", ""), file.name


@pytest.mark.parametrize(
    ("name", "portable"),
    [("a:b", "a-b"), ("a?*<>|\"\\/b", "a--------b"), ("dots..", "dots"), ("CON", "_CON"), ("nul.tar", "_nul.tar"),
     ("com1 ", "_com1"), ("", "file"), ("...", "file"), ("console", "console"), ("žluť", "žluť"), ("a\x07b", "a-b")],
)  # fmt: skip
def test_names_of_files_are_names_on_each_system(name, portable):
    assert portable_name(name) == portable


def test_pictures_of_files_have_names_that_are_apart_on_each_system():
    files = [Path(name) for name in ("Cat.png", "cat.png", "CAT-2.jpg", "aux.png", "a:b.png", "a?b.png")]
    names = _names(files)
    assert len({name.casefold() for name in names}) == len(files)
    assert names[0] == "Cat"
    assert not {":", "?"} & set("".join(names))
    assert "aux" not in names


def test_models_that_differ_in_case_alone_are_refused():
    with pytest.raises(LaminaError, match="punctuation and case"):
        columns_of(["MAE=a", "mae=b"])


def test_files_of_a_checkpoint_are_as_they_were_written(tmp_path):
    """The manifest's digests are those of the bytes on the disk, whatever the system's line ends are."""
    train(tmp_path / "run")
    folder = max((tmp_path / "run" / "checkpoints").iterdir())
    for name in ("state.json", "manifest.json"):
        assert b"\r" not in (folder / name).read_bytes()
        json.loads((folder / name).read_bytes())


def test_workers_that_are_spawned_give_the_same_run(tmp_path):
    """macOS and Windows start workers afresh: all that they get is pickled."""
    settings = {"image_size": 16, "patch_size": 4, "batch_size": 8, "max_steps": 2, "device": "cpu"}
    before = torch.multiprocessing.get_start_method()
    torch.multiprocessing.set_start_method("spawn", force=True)
    try:
        for workers in (0, 1):
            out = tmp_path / str(workers)
            lamina.pretrain(
                "sample:photos?crop=16&most=2",
                out,
                "mae-small",
                workers=workers,
                options=TINY_NETWORK,
                **settings,
            )
    finally:
        torch.multiprocessing.set_start_method(before, force=True)
    files = [tmp_path / str(workers) / "checkpoints" / "step-2" / "model.safetensors" for workers in (0, 1)]
    assert files[0].read_bytes() == files[1].read_bytes()
