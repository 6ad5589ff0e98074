"""Layer weights: what a run logged, read back whole; bias in closed form."""

import json

import pytest

import lamina
from lamina.analyze.layers import analyze_layers, bias
from lamina.errors import LaminaError
from lamina.runs import Run


def train(out, fusion="mff"):
    options = {"encoder.width": 24, "encoder.depth": 4, "encoder.heads": 2, "fusion.layers": (0, 1, 3)}
    options |= {"decoder.width": 16, "decoder.depth": 1, "decoder.heads": 2, "train.log_every_steps": 2}
    sizes = {"image_size": 16, "patch_size": 4, "batch_size": 8, "workers": 0, "max_steps": 6}
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
    w = run.weights[-1]
    assert run.by_weight.first_half == pytest.approx((w[0] + w[1]) / sum(w))
    told = json.loads(json.dumps(result.to_json()))
    assert told["runs"]["MFF"]["bias_by_weight"]["centre"] == pytest.approx(run.by_weight.centre)
    result.plot().savefig(tmp_path / "layers.png")
    assert (tmp_path / "layers.png").stat().st_size > 5000
    with pytest.raises(LaminaError, match="logged no weights"):
        analyze_layers({"MAE": tmp_path / "mae"})
    with pytest.raises(LaminaError, match="is not a run"):
        analyze_layers({"nothing": tmp_path / "nothing"})
