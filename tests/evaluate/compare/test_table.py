"""One table: means over seeds by hand, and the best in bold only where intervals allow."""

import json
from dataclasses import replace

import pytest

from helpers.scores import score, tuned
from lamina.evaluate.compare.table import Comparison
from lamina.evaluate.score import Score


def row_of(**columns: list[Score]):
    (row,) = Comparison.of(columns).rows
    return row


def test_cells_are_means_over_seeds_with_students_interval():
    row = row_of(a=[score(0.5, 1), score(0.4, 0), score(0.6, 2)], b=[score(0.7)])
    a, b = row.cells
    assert a.values == (0.4, 0.5, 0.6)  # by seed
    assert (
        a.tell() == "50.0 ± 23.0"
    )  # half of 4.3027 x 0.1 / sqrt 3 on the logit scale: tanh(0.2484 / 0.5) / 2
    assert b.tell() == "70.0"
    assert row.seeds == 1
    assert row.gain(1, over=0) is None


def test_other_seeds_are_no_pairs():
    values = (0.50, 0.60, 0.70)
    row = row_of(
        a=[score(v, i) for i, v in enumerate(values)],
        b=[score(v + 0.05, i + 5) for i, v in enumerate(values)],
    )
    assert row.gain(1, over=0) is None
    assert not any(cell.best for cell in row.cells)


def rows_of(**columns: list[Score]) -> dict[str, list[float | None]]:
    """Means by row and column."""
    return {
        row.protocol: [None if cell is None else cell.over_seeds.mean for cell in row.cells]
        for row in Comparison.of(columns).rows
    }


def test_ways_of_one_model_are_rows_and_seeds_are_not():
    """Scores of one run by other recipes are no seeds of one number."""
    shorter = tuned(0.9, variant="finetune-s, 5 epochs")
    assert rows_of(a=[tuned(0.5), tuned(0.6, 1)]) == {
        "finetune (finetune-s, 100 epochs)": [pytest.approx(0.55)]  # what all have in common is said too
    }
    found = rows_of(a=[tuned(0.5), tuned(0.7, 1), shorter], b=[tuned(0.7)])
    assert found == {
        "finetune (finetune-s, 100 epochs)": [pytest.approx(0.6), 0.7],
        "finetune (finetune-s, 5 epochs)": [0.9, None],
    }
    assert rows_of(a=[tuned(0.5, variant=""), tuned(0.7)]) == {
        "finetune": [0.5],
        "finetune (finetune-s, 100 epochs)": [0.7],
    }


def test_models_of_other_ways_share_a_row_but_none_is_the_best():
    """As S and B by the recipe of their size; what a difference comes from nobody knows."""
    far = {
        "a": [tuned(0.5, interval=(0.4, 0.6))],
        "b": [tuned(0.9, interval=(0.8, 0.95), variant="finetune-b")],
    }
    comparison = Comparison.of(far)
    (row,) = comparison.rows
    assert not row.alike
    assert not any(cell.best for cell in row.cells)
    assert row.gain(1, over=0) is None
    assert comparison.table()[1][0][-1] == "90.0 (80.0 to 95.0) [finetune-b]"
    assert (
        Comparison.of({"a": far["a"], "b": [replace(far["b"][0], variant=far["a"][0].variant)]})
        .rows[0]
        .cells[1]
        .best
    )


def test_the_newest_step_stands_beside_other_models():
    first, last = tuned(0.5, step=1), tuned(0.9, step=3)
    assert rows_of(a=[first, last], b=[tuned(0.7, step=9)]) == {
        "finetune (finetune-s, 100 epochs, step 1)": [0.5, None],
        "finetune (finetune-s, 100 epochs)": [0.9, 0.7],
    }
    runs = [replace(tuned(0.5 + i / 10, i), model=f"runs/{i}", step=i) for i in range(2)]
    alike = {"finetune (finetune-s, 100 epochs)": [pytest.approx(0.55)]}
    assert rows_of(a=runs) == alike  # seeds may stop where they like


def test_a_seed_counts_once():
    row = row_of(a=[tuned(0.5), tuned(0.6)])
    assert (row.cells[0].values, row.cells[0].seeds) == ((0.6,), (0,))


def test_a_single_seed_shows_its_interval_interval():
    row = row_of(a=[score(0.5, interval=(0.4, 0.6))])
    assert row.cells[0].tell() == "50.0 (40.0 to 60.0)"
    assert not row.cells[0].best  # there is nothing to be better than


@pytest.mark.parametrize(
    ("a", "b", "best"),
    [
        ((0.50, 0.60, 0.70), (0.55, 0.65, 0.75), 1),  # paired by seed: always 5 points
        ((0.50, 0.60, 0.70), (0.75, 0.55, 0.65), None),  # the same values, unpaired: 5 points or nothing
        ((0.50, 0.60, 0.70), (0.50, 0.60, 0.70), None),
    ],
)
def test_the_best_is_marked_where_the_paired_interval_leaves_out_zero(a, b, best):
    row = row_of(a=[score(v, i) for i, v in enumerate(a)], b=[score(v, i) for i, v in enumerate(b)])
    assert [cell.best for cell in row.cells] == [i == best for i in range(2)]


def test_of_single_seeds_intervals_must_be_disjoint():
    far = row_of(a=[score(0.5, interval=(0.4, 0.6))], b=[score(0.8, interval=(0.7, 0.9))])
    near = row_of(a=[score(0.5, interval=(0.4, 0.6))], b=[score(0.65, interval=(0.55, 0.75))])
    none = row_of(a=[score(0.5)], b=[score(0.9)])
    assert [cell.best for cell in far.cells] == [False, True]
    assert not any(cell.best for row in (near, none) for cell in row.cells)


def test_of_errors_less_is_better():
    intervals = {"a": (0.1, 0.2), "b": (0.3, 0.4)}
    columns = {
        name: [score(sum(bounds) / 2, metric="mean error (generated)", interval=bounds)]
        for name, bounds in intervals.items()
    }
    assert [cell.best for cell in row_of(**columns).cells] == [True, False]


def test_one_of_three_must_beat_both():
    bounds = {"a": (0.1, 0.2), "b": (0.5, 0.6), "c": (0.55, 0.65)}
    row = row_of(**{k: [score(sum(v) / 2, interval=v)] for k, v in bounds.items()})
    assert not any(cell.best for cell in row.cells)


def test_the_table_has_a_row_for_each_protocol_and_holes_where_nothing_is():
    comparison = Comparison.of(
        {
            "MAE": [score(0.5, s) for s in range(3)] + [score(0.2, protocol="linear")],
            "MFF": [score(0.6 + 0.001 * s, s) for s in range(3)],
        }
    )
    header, lines = comparison.table()
    assert header == ("protocol", "metric, %", "train", "test", "largest class, %", "seeds", "MAE", "MFF")
    assert lines[0] == ("knn", "top1", "100", "50", "", "3", "50.0 ± 0.0", "**60.1 ± 0.2**")
    assert lines[1][-2:] == ("20.0", "")
    (gain,) = comparison.gains()
    assert gain == "knn: MFF minus MAE +10.1 ± 0.2 points (3 seeds)."
    content = json.loads(json.dumps(comparison.to_json()))
    assert content["rows"][0]["models"]["MFF"]["values"] == [0.6, 0.601, 0.602]
    assert content["rows"][1]["models"]["MFF"] is None
