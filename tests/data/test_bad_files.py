"""A folder with too many bad files: the run ends with code 2, saved, and its report names the files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.bad_files import arguments
from lamina.cli.entry import main
from lamina.runs.run import Run
from lamina.train import checkpoint

BAD = 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """24 images, of which 6 are no images: one more than the limit, met within one epoch of 3 steps."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(24):
        file = tmp_path / "photos" / f"{i:02}.png"
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(file)
        if i % 4 == 2:
            file.write_bytes(b"")
    return tmp_path / "photos"


def check_end(out: Path, printed: str) -> None:
    run = Run(out)
    (step,) = checkpoint.steps(run.checkpoints)
    assert step <= 3
    assert f"{BAD} of 24 files cannot be read ({BAD} empty file" in printed
    assert f"step {step} of 9, saved in" in printed
    told = [
        line
        for line in run.log_file.read_text().splitlines()
        if "cannot be read (empty file); another" in line
    ]
    assert sorted(line.split(": ")[1].split(" cannot")[0] for line in told) == [
        f"{i:02}.png" for i in range(24) if i % 4 == 2
    ]
    skipped = {
        row["name"].rpartition("/")[2] for row in json.loads((out / "skipped.json").read_text())["files"]
    }
    assert skipped == {f"{i:02}.png" for i in range(24) if i % 4 == 2}
    page = run.report_file.read_text(encoding="utf-8")
    assert f"{BAD} files" in page
    assert 'http-equiv="refresh"' not in page


def test_one_rank_stops_and_goes_on_with_a_higher_limit(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(folder, tmp_path / "run")) == 2
    check_end(tmp_path / "run", capsys.readouterr().out)
    more = arguments(folder, tmp_path / "run", **{"data.bad_files_min": "6"})
    assert main([*more, "--resume"]) == 0
    assert checkpoint.steps(Run(tmp_path / "run").checkpoints)[-1] == 9


@pytest.mark.slow
def test_two_ranks_stop_together(folder: Path, tmp_path: Path) -> None:
    """Neither rank meets more than the limit by itself."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "-m", "lamina"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*command, *arguments(folder, tmp_path / "run")],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr[-2000:]  # torchrun's, whatever the ranks' own
    assert "exitcode  : 2 " in done.stderr
    assert "broadcast_buffers" not in done.stderr  # deprecated as an argument in newer torch
    check_end(tmp_path / "run", done.stdout)


def test_files_that_cannot_be_written_and_odd_seeds_are_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(arguments(folder, tmp_path / "file" / "run")) == 2
    assert capsys.readouterr().err == f"lamina: {tmp_path / 'file' / 'run'}: Not a directory\n"
    assert main(arguments(folder, tmp_path / "run", seed="-1")) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "seed is -1; it must be from 0 to 2**63 - 1" in said
    monkeypatch.setenv("RANK", "1")
    assert main(["dance"]) == 2
    assert capsys.readouterr().err.startswith("lamina: rank 1: there is no verb")


def test_the_ways_out_of_too_many_bad_files_work_as_they_are_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Deleted files make other data, and the sentence says so; readable ones in their place let the run go on."""
    out = tmp_path / "run"
    assert main(arguments(folder, out)) == 2
    printed = capsys.readouterr().out
    assert "put readable ones under the same names or raise data.bad_files_max_share" in printed
    bad = [file for file in sorted(folder.iterdir()) if not file.stat().st_size]
    good = next(file for file in sorted(folder.iterdir()) if file.stat().st_size).read_bytes()
    for file in bad[1:]:
        file.write_bytes(good)
    bad[0].unlink()
    assert main([*arguments(folder, out), "--resume"]) == 2
    assert f"or start a new run with --init {out}" in capsys.readouterr().err
    bad[0].write_bytes(b"")  # still one that cannot be read, but no longer too many
    assert main([*arguments(folder, out, **{"data.bad_files_min": "1"}), "--resume"]) == 0
    assert checkpoint.steps(Run(out).checkpoints)[-1] == 9
