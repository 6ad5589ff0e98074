"""What a training advises when it stops is accepted by --resume, and lets it go on."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.image_files import SLOW_JPEG
from helpers.options import TINY_RUN, words
from lamina.cli.entry import main
from lamina.core.batch import Fault
from lamina.core.config import merge
from lamina.core.errors import LaminaError
from lamina.core.records import to_yaml
from lamina.data.loading.bad_files import FaultBudget
from lamina.data.open import open_source
from lamina.data.options import DataOptions, FileLimits
from lamina.runs.run import Run
from lamina.tokenizer.options import TokenizerOptions
from lamina.tokenizer_training import train_tokenizer
from lamina.train import checkpoint
from lamina.train.options import TrainOptions

LIMITS = {"data.max-pixels": "100000", "data.max-decode-mb": "1", "data.max-decode-seconds": "0.1"}
TINY = TINY_RUN | {
    "batch-size": 8, "max-steps": 4, "monitor.images": 0,
    "data.bad-files-max-share": 0, "data.bad-files-min": 2,
}  # fmt: skip


def recorded(run: Path) -> dict[str, float]:
    data = Run(run).recipe().data
    return {name: getattr(data, name) for name in ("max_pixels", "max_decode_mb", "max_decode_seconds")}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images: one of more pixels than allowed, one of more bytes, one that takes longer."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(5):
        Image.new("RGB", (20, 20), (40 * i, 0, 0)).save(folder / f"{i}.png")
    Image.new("L", (400, 300)).save(folder / "pixels.png")
    np.save(folder / "bytes.npy", np.zeros((300, 300, 3), np.float64))
    (folder / "time.jpg").write_bytes(SLOW_JPEG)
    return folder


@pytest.fixture(scope="module")
def stopped(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ended since three files are over a limit, and two may be."""
    run = tmp_path_factory.mktemp("stopped") / "run"
    assert main(["pretrain", str(photos), "--out", str(run), *words(TINY | LIMITS)]) == 2
    return run


@pytest.fixture(scope="module")
def finished(stopped: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, which went on with a third file that may be bad, and is at its end."""
    run = shutil.copytree(stopped, tmp_path_factory.mktemp("finished") / "run")
    resume = ["pretrain", str(photos), "--out", str(run), "--resume"]
    assert main(resume) == 2  # as it is, it stops again
    assert main([*resume, "--data.bad-files-min", "3"]) == 0
    return run


def test_the_message_names_each_limit_that_files_are_over(stopped: Path) -> None:
    log = (stopped / "train.log").read_text()
    for name in ("max_decode_mb", "max_pixels", "max_decode_seconds", "bad_files_max_share"):
        assert f"data.{name}" in log


@pytest.mark.parametrize(
    ("advice", "read_now"),
    [
        ({"data.max-pixels": "200000"}, {"pixels.png"}),
        ({"data.max-decode-mb": "64"}, {"bytes.npy"}),
        ({"data.bad-files-max-share": "0.5"}, set()),
        ({"data.bad-files-min": "3"}, set()),
    ],
)
def test_a_run_with_too_many_bad_files_goes_on_as_its_message_says(
    stopped: Path, photos: Path, advice: dict[str, str], read_now: set[str], tmp_path: Path, capsys
) -> None:
    run, before = tmp_path / "run", recorded(stopped)
    shutil.copytree(stopped, run)
    resume = ["pretrain", str(photos), "--out", str(run), "--resume"]
    assert main([*resume, *words(advice)]) == 0
    assert checkpoint.steps(Run(run).checkpoints)[-1] == 4
    since = (run / "train.log").read_text().rpartition("going on at step")[2]
    assert {name for name in ("pixels.png", "bytes.npy", "time.jpg") if name not in since} == read_now
    if read_now:  # the images are others from there on: it is said, and stands in the recipe
        (name,) = advice
        name = name.replace("-", "_")
        assert f"{name} was " in capsys.readouterr().out
        assert recorded(run) != before
        assert f"{name}: {before[name.partition('.')[2]]}" in Run(run).recipe_file.read_text()
        assert main(resume) == 0


def test_a_limit_of_files_may_be_raised_and_not_lowered(
    stopped: Path, photos: Path, tmp_path: Path, capsys
) -> None:
    """Images that were trained on would be left out."""
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    resume = ["pretrain", str(photos), "--out", str(run), "--resume"]
    for name, value in (("data.max-pixels", "90000"), ("data.max-decode-seconds", "0.05")):
        assert main([*resume, f"--{name}", value]) == 2
        assert f"these differ: {name.replace('-', '_')}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "advice",
    [
        {"workers": "1"},  # a worker died, or there is no room in /dev/shm
        {"data.worker-timeout-seconds": "9"},  # no batch has come
        {"data.max-decode-seconds": "0.2"},  # a file takes longer than allowed
        {"train.nonfinite-limit": "99"},  # too many steps without a finite loss
        {"device": "cpu"},
        {"train.keep-checkpoints": "1"},  # the disk is full
    ],
)
def test_other_advice_is_accepted(
    finished: Path, photos: Path, advice: dict[str, str], tmp_path: Path
) -> None:
    """A run that is at its end ends at once."""
    run = shutil.copytree(finished, tmp_path / "run")
    assert main(["pretrain", str(photos), "--out", str(run), "--resume", *words(advice)]) == 0


# --- the same of other trainings --------------------------------------------------------------------------


def test_a_tokenizer_with_too_many_bad_files_goes_on_as_its_message_says(
    photos: Path, tmp_path: Path
) -> None:
    options = TokenizerOptions(
        image_size=16, width=8, depth=1, max_steps=4, batch_size=6, workers=0, device="cpu",
        data=FileLimits(max_pixels=100_000, max_decode_mb=1, max_decode_seconds=0.1, bad_files_min=0, bad_files_max_share=0.0),
    )  # fmt: skip
    outcome = train_tokenizer(str(photos), tmp_path / "t", options)
    assert outcome.exit_code == 2
    assert "raise data.max_decode_mb (or data.max_pixels" in outcome.sentence
    lower = merge(options, {"data": {"max_pixels": 9}})
    with pytest.raises(LaminaError, match=r"these differ: data\.max_pixels"):
        train_tokenizer(str(photos), tmp_path / "t", lower, resume=True)
    raised = merge(options, {"data": {"max_pixels": 200_000, "max_decode_mb": 64, "bad_files_min": 1}})
    assert train_tokenizer(str(photos), tmp_path / "t", raised, resume=True).exit_code == 0
    free = merge(raised, {"nonfinite_limit": 99, "workers": 1, "data": {"worker_timeout_seconds": 9.0}})
    assert train_tokenizer(str(photos), tmp_path / "t", free, resume=True).exit_code == 0


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("data.bad_files_max_share", 0.5, True),
        ("data.bad_files_min", 9, True),
        ("data.worker_timeout_seconds", 9.0, True),
        ("data.workers", 0, True),
        ("train.nonfinite_limit", 99, True),
        ("data.max_decode_mb", 4096, True),
        ("data.max_decode_mb", 1, False),
        ("data.max_pixels", 2000, True),
        ("data.max_decode_seconds", 99.0, True),
        ("data.jitter", [0.1, 0.1, 0.1, 0.1], False),
    ],
)
def test_an_evaluation_that_trains_accepts_the_same(
    name: str, value: object, accepted: bool, tmp_path: Path
) -> None:
    """Its settings hold the recipe below other things."""
    from lamina.evaluate.dense.train import SETTINGS, _other_settings

    def settings(changed: dict[str, object]) -> str:
        data = {
            "bad_files_max_share": 0.001, "bad_files_min": 10, "worker_timeout_seconds": 600.0, "workers": 2,
            "max_decode_mb": 2048, "max_pixels": 1000, "max_decode_seconds": 10.0, "jitter": None,
        }  # fmt: skip
        recipe = {"data": data, "train": {"nonfinite_limit": 20}}
        for dotted, new in changed.items():
            group, _, field = dotted.partition(".")
            recipe[group][field] = new
        return to_yaml({"protocol": "segment", "recipe": recipe})

    file = tmp_path / SETTINGS
    file.write_text(settings({}))
    if accepted:
        limit = name.partition(".")[2].startswith("max_")
        assert _other_settings(file, settings({name: value}), TrainOptions()) == limit  # it is written down
    else:
        with pytest.raises(LaminaError, match=f"these differ: recipe.{name}"):
            _other_settings(file, settings({name: value}), TrainOptions())


def test_where_the_content_of_images_counts_mending_files_is_not_advised(photos: Path) -> None:
    """A resumed evaluation is refused where files changed; it is begun again."""
    source = open_source(str(photos))
    budget = FaultBudget(source, DataOptions(bad_files_min=0, bad_files_max_share=0.0))
    assert "put readable ones under the same names or raise data" in (budget.add([Fault(0, 1, "x")]) or "")
    budget.content_counts = True
    told = budget.add([]) or ""
    assert "`lamina data check`, raise data.bad_files_max_share, and go on with --resume; if you mend" in told
    assert "start again with --overwrite" in told
    assert "same names" not in told
