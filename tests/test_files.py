"""Files are whole or as they were, and a target that cannot be written is found beforehand."""

import pytest

from lamina.errors import LaminaError
from lamina.files import check_writable, replacing, write_atomically


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
