"""Only plain files of bounded size are read, and nothing is waited for."""

import os
import socket

import pytest

from lamina.core.errors import LaminaError
from lamina.core.plain_files import DamagedFile, check_plain, read_plain, read_text


def odd_files(tmp_path):
    (tmp_path / "file").write_text("secret")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "device").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(tmp_path)  # the path of a socket is short
        server.bind("socket")
        os.chdir(here)
    return ["folder", "link", "device", "pipe", "socket"]


def test_whatever_is_no_plain_file_is_refused_at_once(tmp_path):
    for name in odd_files(tmp_path):
        for read in (read_plain, check_plain):
            with pytest.raises(DamagedFile, match=f"{name} cannot be used: it is (no plain file|a link)"):
                read(tmp_path / name)


def test_links_are_followed_where_asked_but_not_to_a_device(tmp_path):
    odd_files(tmp_path)
    assert read_plain(tmp_path / "link", links=True) == b"secret"
    for name in ("device", "pipe", "folder", "socket"):
        with pytest.raises(DamagedFile, match="no plain file"):
            read_plain(tmp_path / name, links=True)


def test_a_file_that_is_not_there_is_told_from_one_that_cannot_be_used(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_plain(tmp_path / "nowhere")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError):
        read_plain(tmp_path / "dangling", links=True)


def test_size_is_bounded_without_reading_more(tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DamagedFile, match="more than 65536 KiB"):
        read_plain(tmp_path / "sparse")
    (tmp_path / "just").write_bytes(b"x" * 10)
    assert read_plain(tmp_path / "just", 10) == b"x" * 10
    with pytest.raises(DamagedFile):
        read_plain(tmp_path / "just", 9)


def test_text_is_utf_8_and_the_error_says_what_to_do(tmp_path):
    (tmp_path / "latin").write_bytes("naïve".encode("latin-1"))
    with pytest.raises(
        LaminaError, match=r"latin cannot be used: byte 2 is no UTF-8; write it again"
    ) as caught:
        read_text(tmp_path / "latin", mend="write it again")
    assert "\n" not in str(caught.value)
