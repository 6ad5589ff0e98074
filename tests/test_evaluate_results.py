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
from lamina.evaluate.results import ProbeResult, Row, mark_chosen
from lamina.features.table import Timing
from lamina.report.shown_scores import read_result


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
    return ProbeResult(
        "knn",
        "runs/mff",
        "photos",
        100,
        50,
        20,
        ("a", "b"),
        0,
        "leave-one-out",
        mark_chosen(rows),
        ("a note",),
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
    assert ProbeResult.read(file) == result()
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
    assert ProbeResult.read(tmp_path / "knn.json").timing == both
    shown = read_result(saved, "knn", [])
    assert shown.timing == "features of 40 images in 4.0 s: 10.0 images/s, data wait 50%"
    del saved["timing"]  # as older results are
    write_json(tmp_path / "knn.json", saved)
    assert ProbeResult.read(tmp_path / "knn.json").timing is None
    assert read_result(saved, "knn", []).timing == ""
