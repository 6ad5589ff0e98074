"""Intervals against scipy; the choice of rows; JSON and table."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from lamina.core.errors import LaminaError
from lamina.core.intervals import wilson_interval
from lamina.core.records import read_json, write_json
from lamina.evaluate.results import Row, mark_chosen
from lamina.evaluate.score import Score, scores_of_rows
from lamina.features.table import Timing
from lamina.report.shown_scores import read_score


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_scipys(case):
    correct, n = case
    expected = binomtest(correct, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(correct, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("correct", "n"), [(1, 0), (-1, 3), (4, 3)])
def test_wilson_refuses_what_is_no_proportion(correct, n):
    with pytest.raises(LaminaError, match="interval"):
        wilson_interval(correct, n)


def row(encoder, features, validation, top1):
    return Row(encoder, features, "mean", {"k": 10}, top1, (0.1, 0.9), validation)


def result():
    rows = [
        row("trained", "last", 0.6, 0.9),
        row("trained", "fused", 0.7, 0.5),
        row("untrained", "last", 0.4, 0.3),
        row("untrained", "fused", 0.4, 0.8),
        row("pixels", "pixels", 0.2, 0.45),
    ]
    return Score.of_rows(
        mark_chosen(rows),
        protocol="knn",
        model="runs/mff",
        data="photos",
        step=100,
        n_train=50,
        n_test=20,
        classes=("a", "b"),
        seed=0,
        selection="leave-one-out",
        notes=("a note",),
    )


def test_the_choice_follows_validation_and_the_first_of_equals():
    chosen = [(r.encoder, r.features) for r in result().rows if r.chosen]
    assert chosen == [("trained", "fused"), ("untrained", "last"), ("pixels", "pixels")]
    assert result().chosen().top1 == 0.5  # though another row did better on the test set
    assert result().gain == pytest.approx(0.05)


def test_json_is_as_agreed_and_comes_back(tmp_path):
    file = tmp_path / "results" / "knn.json"
    result().save(file)
    saved = json.loads(file.read_text())
    assert {"protocol", "data", "step", "n_train", "n_test", "classes", "seed", "rows"} <= saved.keys()
    assert saved["rows"][1] == {
        "encoder": "trained",
        "features": "fused",
        "pool": "mean",
        "settings": {"k": 10},
        "top1": 0.5,
        "interval": [0.1, 0.9],
        "validation_top1": 0.7,
        "chosen": True,
        "balanced": None,
        "confusion": None,
    }
    assert Score.read(file) == result()
    assert [f.name for f in file.parent.iterdir()] == ["knn.json"]


def test_table_has_a_header_and_a_line_per_row():
    header, *lines = result().table()
    assert header[3] == "kNN top1"
    assert len(lines) == 5
    assert {len(line) for line in lines} == {len(header)}
    assert lines[1] == ("trained", "fused", "mean", "50.0 %", "10.0 - 90.0", "", "70.0 %", "k=10", "*")


def test_the_time_that_features_took_is_kept_and_shown_and_makes_no_difference(tmp_path):
    both = Timing.of(30, 2.0, 0.5) + Timing.of(10, 2.0, 1.5)
    assert both == Timing(40, 4.0, 10.0, 0.5)
    timed = replace(result(), timing=both)
    assert timed == result()
    timed.save(tmp_path / "knn.json")
    saved = read_json(tmp_path / "knn.json")
    assert saved["timing"] == {"images": 40, "seconds": 4.0, "images_per_second": 10.0, "data_wait": 0.5}
    assert Score.read(tmp_path / "knn.json").timing == both
    shown = read_score(saved, "knn", [])
    assert str(shown.timing) == "features of 40 images in 4.0 s: 10.0 images/s, data wait 50%"
    del saved["timing"]  # as older results are
    write_json(tmp_path / "knn.json", saved)
    assert Score.read(tmp_path / "knn.json").timing is None
    assert read_score(saved, "knn", []).timing is None


EARLIER = {
    "protocol": "knn",
    "model": "runs/mff",
    "data": "photos",
    "step": 100,
    "n_train": 50,
    "n_test": 20,
    "classes": ["a", "b"],
    "seed": 3,
    "selection": "leave-one-out",
    "rows": [
        {
            "encoder": "trained",
            "features": "last",
            "pool": "mean",
            "settings": {"k": 10},
            "top1": 0.5,
            "interval": [0.25, 0.75],
            "validation_top1": 0.7,
            "chosen": True,
            "balanced": 0.4,
            "confusion": None,
        }
    ],
    "notes": ["a note"],
    "way": "k 3",
    "majority": 0.6,
    "images": "12ab",
    "timing": {"images": 40, "seconds": 4.0, "images_per_second": 10.0, "data_wait": 0.5},
}
"""A probe's file of lamina 0.1, by the fields of its `ProbeResult`."""


def test_a_probes_file_of_an_earlier_version_is_a_score(tmp_path):
    write_json(tmp_path / "knn.json", EARLIER)
    score = Score.read(tmp_path / "knn.json")
    assert (score.metric, score.value, score.interval, score.seconds) == ("top1", 0.5, (0.25, 0.75), 4.0)
    assert (score.variant, score.majority, score.images, score.seed) == ("k 3", 0.6, "12ab", 3)
    assert score.chosen().balanced == 0.4
    score.save(tmp_path / "again.json")
    assert Score.read(tmp_path / "again.json") == score
    assert scores_of_rows(score)[0].variant == "last, mean"


def test_a_score_of_an_earlier_version_calls_its_variant_a_way(tmp_path):
    (today,) = [replace(score, variant="finetune-s") for score in scores_of_rows(result())[:1]]
    fields = {"kind": "score", **today.to_json()}
    variant = fields.pop("variant")
    assert not {"rows", "classes", "selection", "timing"} & fields.keys()  # probes alone have them
    write_json(tmp_path / "old.json", {**fields, "way": variant})
    assert "variant" not in read_json(tmp_path / "old.json")
    assert Score.read(tmp_path / "old.json") == today
    with pytest.warns(DeprecationWarning, match="Score.variant"):
        assert today.way == variant == "finetune-s"


@pytest.mark.parametrize(
    "changes", [{"rows": []}, {"rows": [{}]}, {"n_train": "x"}, {"step": [1]}, {"frob": 1}]
)
def test_what_is_no_score_is_left_out_of_a_report_with_a_note(changes):
    notes = []
    assert read_score({**EARLIER, **changes}, "knn", notes) is None
    assert notes == ["results/knn.json is not a result of an evaluation and was left out"]
