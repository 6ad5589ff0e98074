"""Rows of metrics.jsonl: each verified, a damaged one never taken and never in the way of those after it."""

import json

import pytest

from lamina.core.errors import LaminaError
from lamina.core.plain_files import DamagedFile
from lamina.train.log_files import LogFiles
from lamina.train.rows import cut_back, read_rows, row_text, whole_rows

ROWS = [{"step": step, "loss": 1 / step, "weights": [0.1, step], "unknown": None} for step in (3, 6, 9)]


def written(folder):
    file = folder / "metrics.jsonl"
    file.write_text("".join(row_text(row) + "\n" for row in ROWS))
    return file


def test_rows_come_back_and_are_plain_json_to_others(tmp_path):
    file = written(tmp_path)
    assert read_rows(file) == (ROWS, [])
    others = [json.loads(line) for line in file.read_text().splitlines()]
    assert [{k: v for k, v in row.items() if k != "sha256"} for row in others] == ROWS


def test_no_flipped_bit_gives_another_row(tmp_path):
    file = written(tmp_path)
    data = file.read_bytes()
    for i in range(len(data)):
        for bit in (0, 4, 6):
            file.write_bytes(data[:i] + bytes([data[i] ^ 1 << bit]) + data[i + 1 :])
            rows, damaged = read_rows(file)
            own = [{k: v for k, v in row.items() if k in ROWS[0]} for row in rows]
            assert all(row in ROWS for row in own)
            # A line feed that is lost makes one line of two; one that comes up makes two of one.
            assert len(own) + len(damaged) >= 2


def test_a_broken_line_takes_no_later_row_with_it(tmp_path):
    file = written(tmp_path)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + lines[1].replace(b"0.1", b"0.7") + lines[2])
    assert read_rows(file) == ([ROWS[0], ROWS[2]], [2])
    with pytest.raises(LaminaError, match=r"damaged in line 2; restore .* or delete"):
        whole_rows(file)
    assert cut_back(file, 9) == (2, 1)
    assert file.read_bytes() == lines[0] + lines[2]


def test_rows_are_cut_back_to_a_step_byte_for_byte(tmp_path):
    file = written(tmp_path)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines) + lines[2][:20])
    assert read_rows(file) == (ROWS, [])  # the last line is being written
    assert cut_back(file, 6) == (2, 0)
    assert file.read_bytes() == lines[0] + lines[1]
    assert cut_back(tmp_path / "nowhere", 6) == (0, 0)


def test_a_log_goes_on_and_says_what_is_lost(tmp_path):
    file = written(tmp_path)
    files = LogFiles(tmp_path, 9, known=3)
    files.row({"step": 12})
    assert (files.rows, files.losses) == (4, None)
    files.close()
    file.unlink()
    files = LogFiles(tmp_path, 12, known=4)
    assert files.losses == "metrics.jsonl: 4 of 4 rows are gone, 0 are kept"
    files.close()


def test_rows_of_before_there_were_digests_and_odd_ones(tmp_path):
    file = tmp_path / "metrics.jsonl"
    odd = ['{"step": Infinity}', '{"step": 1e999}', '{"step": "3"}', "[3]", "3", '{"loss": 1}', "[" * 9000,
           f'{{"step": {"9" * 50}}}', '{"step": true}']  # fmt: skip
    file.write_text("\n".join([json.dumps(ROWS[0]), *odd, json.dumps(ROWS[1]), ""]))
    assert read_rows(file) == (ROWS[:2], list(range(2, 2 + len(odd))))


def test_a_device_and_a_line_without_end_are_refused(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.symlink_to("/dev/zero")
    for read in (read_rows, lambda file: cut_back(file, 3)):
        with pytest.raises(DamagedFile, match="a link"):
            read(file)
    file.unlink()
    file.write_bytes(b"[" * (3 << 20))
    for read in (read_rows, lambda file: cut_back(file, 3)):
        with pytest.raises(DamagedFile, match="line of more than 1024 KiB"):
            read(file)
