"""Layer weights: what a run logged, read back whole and as it is drawn; bias in closed form."""

import json

import numpy as np
import pytest
from matplotlib.colors import to_hex

import lamina
from helpers.options import TINY_NETWORK, as_read
from lamina.analyze.fusion_weights import LayersResult, LayerWeights, analyze_layers, bias
from lamina.analyze.fusion_weights_plot import draw, summarize
from lamina.analyze.output import save_figure
from lamina.core.errors import LaminaError
from lamina.runs.run import Run


def train(out, fusion="mff", **more):
    options = (
        TINY_NETWORK | {"encoder.depth": 4, "fusion.layers": (0, 1, 3), "train.log_every_steps": 2} | more
    )
    sizes = {"image_size": 16, "patch_size": 4, "batch_size": 8, "workers": 0, "max_steps": 6}
    options = as_read("mae-small", options, fusion)
    lamina.pretrain("sample:photos?crop=16&most=2", out, "mae-small", options=options, fusion=fusion, **sizes)


def test_bias_in_closed_form():
    assert bias(range(12), [1 / 12] * 12, 12).first_half == pytest.approx(0.5)
    assert bias(range(12), [1 / 12] * 12, 12).centre == pytest.approx(0.5)
    assert bias((0, 11), (1.0, 0.0), 12) == bias((0, 11), (5.0, 0.0), 12)
    assert bias((0, 11), (0.25, 0.75), 12).first_half == pytest.approx(0.25)
    assert bias((0, 11), (0.25, 0.75), 12).centre == pytest.approx(0.75)
    assert bias((0, 1, 2), (0.5, 0.3, 0.2), 3).first_half == pytest.approx(0.65)  # the middle counts half
    with pytest.raises(LaminaError, match="more than zero"):
        bias((0, 1), (0.0, 0.0), 2)


def test_a_run_is_read_as_it_was_logged(tmp_path):
    train(tmp_path / "mff")
    train(tmp_path / "mae", "none")
    result = analyze_layers({"MFF": tmp_path / "mff"})
    run, rows = result.runs["MFF"], Run(tmp_path / "mff").metrics()
    assert run.layers == (0, 1, 3)
    assert run.depth == 4
    assert run.steps == (2, 4, 6)
    assert [list(row) for row in run.weights] == [row["fusion_weights"] for row in rows]
    assert [list(row) for row in run.shares] == [row["fusion_shares"] for row in rows]
    assert run.lr_sums[-1] == rows[-1]["lr_sum"]
    assert run.logit_lr_scale == 10
    assert run.logit_reach == pytest.approx([10 * row["lr_sum"] for row in rows])
    w = run.weights[-1]
    assert run.by_weight.first_half == pytest.approx((w[0] + w[1]) / sum(w))
    told = json.loads(json.dumps(result.to_json()))
    assert told["runs"]["MFF"]["bias_by_weight"]["centre"] == pytest.approx(run.by_weight.centre)
    assert told["runs"]["MFF"]["logit_reach"][-1] == pytest.approx(10 * rows[-1]["lr_sum"])
    assert told["runs"]["MFF"]["lr_sums"][-1] == rows[-1]["lr_sum"]
    assert f"{10 * rows[-1]['lr_sum']:.3g}: about how far a logit" in summarize(result).notes[0]
    with pytest.raises(LaminaError, match="logged no weights"):
        analyze_layers({"MAE": tmp_path / "mae"})
    with pytest.raises(LaminaError, match="is not a run"):
        analyze_layers({"nothing": tmp_path / "nothing"})


def test_attention_pooling_has_weights_but_no_logits(tmp_path):
    train(tmp_path / "attention", **{"fusion.pooling": "attention"})
    result = analyze_layers({"attention": tmp_path / "attention"})
    run, rows = result.runs["attention"], Run(tmp_path / "attention").metrics()
    assert list(run.weights[-1]) == rows[-1]["fusion_weights"]
    assert run.pooling == "attention"
    assert json.loads(json.dumps(result.to_json()))["runs"]["attention"]["logit_reach"] is None
    assert "logit" not in summarize(result).notes[0]
    lines, *_ = draw(result).axes
    (above,) = lines.child_axes
    assert above.get_xlabel() == "sum of learning rates"
    assert [label.get_text() for label in above.get_xticklabels()][-1] == f"{rows[-1]['lr_sum']:.2g}"


def made(layers, depth, seed, steps=(10, 20, 35), pooling="average"):
    """Weights and shares that are all different, over steps that are not equally far apart."""
    generator = np.random.default_rng(seed)
    weights, shares = generator.dirichlet(np.ones(len(layers)), (2, len(steps))).tolist()
    sums = tuple(0.001 * step for step in steps)
    return LayerWeights(
        layers, depth, steps, tuple(map(tuple, weights)), tuple(map(tuple, shares)), sums, 30.0, pooling
    )


RUNS = {
    "a": made((0, 2, 4, 6, 8, 11), 12, 0),
    "all of 24": made(tuple(range(24)), 24, 1),
    "b $x$ _y" + "_long" * 30: made((1, 3), 4, 2, steps=(7,)),
    "_attention": made((0, 1, 2, 3, 4, 5), 6, 3, pooling="attention"),
}


def panels(result):
    """The axes of the picture without colour bars: four for each run, then two for all."""
    found = [axes for axes in draw(result).axes if axes.get_label() != "<colorbar>"]
    assert len(found) == 4 * len(result.runs) + 2
    return found


def curves(axes):
    """Lines but those that mark equal weights."""
    return [line for line in axes.get_lines() if line.get_linestyle() in ("-", "None")]


@pytest.mark.parametrize("names", [list(RUNS)[:1], list(RUNS)[2:3], list(RUNS)])
def test_rows_show_weights_and_shares_by_step(names):
    result = LayersResult({name: RUNS[name] for name in names})
    found = panels(result)
    for i, run in enumerate(result.runs.values()):
        panels_of_run = found[4 * i : 4 * i + 4]
        for lines, panel, title, rows in (
            (*panels_of_run[:2], "softmax weight", run.weights),
            (*panels_of_run[2:], "norm share", run.shares),
        ):
            taps = curves(lines)
            assert [line.get_label() for line in taps] == [f"block {layer}" for layer in run.layers]
            assert lines.get_ylabel() == title
            for tap, line in enumerate(taps):
                assert tuple(line.get_xdata()) == run.steps
                assert list(line.get_ydata()) == [row[tap] for row in rows]
            (mesh,) = panel.collections
            np.testing.assert_array_equal(mesh.get_array().reshape(len(run.layers), -1), np.transpose(rows))
            assert panel.get_title() == title
            corners = mesh.get_coordinates()
            assert list(corners[0, :, 0]) == [0, *run.steps]  # a cell ends at the step of its own log row
            assert list(corners[:, 0, 1]) == [tap - 0.5 for tap in range(len(run.layers) + 1)]
            for label in panel.get_yticklabels():
                assert int(label.get_text()) == run.layers[round(label.get_position()[1])]


def test_lines_have_one_colour_scale_by_depth():
    found = panels(LayersResult({name: RUNS[name] for name in ("a", "all of 24")}))
    of_12, of_24 = (
        dict(zip(RUNS[name].layers, curves(found[at]), strict=True))
        for name, at in (("a", 0), ("all of 24", 4))
    )
    assert to_hex(of_12[0].get_color()) == to_hex(of_24[0].get_color())
    assert to_hex(of_12[11].get_color()) == to_hex(of_24[23].get_color())
    assert len({to_hex(line.get_color()) for line in of_24.values()}) == 24


def test_learning_rates_stand_above_their_steps():
    lines = panels(LayersResult({"a": RUNS["a"]}))[0]
    (above,) = lines.child_axes
    assert set(above.get_xticks()) < set(lines.get_xticks())
    for tick, label in zip(above.get_xticks(), above.get_xticklabels(), strict=True):
        assert float(label.get_text()) == pytest.approx(30 * 0.001 * tick, rel=0.05)
    assert above.get_xlabel() == "sum of learning rates \u00d7 30"
    assert "add up to 0.035, \u00d7 30 = 1.05:" in lines.figure.get_suptitle()


def test_all_runs_end_side_by_side_with_their_bias():
    result = LayersResult(RUNS)
    weights, shares = panels(result)[-2:]
    for panel, kind, own in ((weights, "weights", "by_weight"), (shares, "shares", "by_share")):
        said = [text.get_text() for text in panel.get_legend().get_texts()]
        hues = set()
        for line, text, (name, run) in zip(curves(panel), said, result.runs.items(), strict=True):
            assert tuple(line.get_xdata()) == run.layers
            assert tuple(line.get_ydata()) == getattr(run, kind)[-1]
            numbers = getattr(run, own)
            assert text.endswith(f": {numbers.first_half:.2f}, {numbers.centre:.2f}")
            assert name[-20:] in text.replace("\\$", "$")
            hues.add(line.get_color())
        assert len(hues) == len(RUNS)
        assert panel.get_xlabel() == "block"
    assert [a.get_color() for a in curves(weights)] == [a.get_color() for a in curves(shares)]


def test_the_picture_is_written_whatever_runs_are_called(tmp_path):
    result = LayersResult(dict(list(RUNS.items())[2:]))
    save_figure(draw(result), [tmp_path / "layers.svg"], "lamina analyze layers 'a $x$ _y'")
    drawn = (tmp_path / "layers.svg").read_text()
    assert "Oblique" not in drawn  # dollars make no mathematics
    for text in ("_attention", "lamina analyze layers 'a $x$ _y'", "sum over the first half"):
        assert text in drawn
