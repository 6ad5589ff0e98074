"""Every analysis on every kind of network: a problem that is written otherwise keeps its answer, and prefix
tokens have no part in what is said of patches."""

import json
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch

from helpers.runs import NAMES, shaken, toy_recipe
from lamina.analyze.attention import analyze_attention
from lamina.analyze.catalog import HessianOptions
from lamina.analyze.frequency import analyze_frequency
from lamina.analyze.fusion_weights import analyze_layers
from lamina.analyze.hessian import analyze_hessian
from lamina.analyze.layer_probes import analyze_depth
from lamina.analyze.models import ModelOnImages
from lamina.analyze.patches import analyze_patches
from lamina.analyze.rank import analyze_rank
from lamina.analyze.reconstruction import Filler, analyze_reconstruction
from lamina.analyze.retrieval import analyze_retrieval
from lamina.analyze.similarity import analyze_similarity
from lamina.callbacks.fusion_monitor import FusionMonitor
from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.core.rng import sample_keys
from lamina.data.sources import ArraySource
from lamina.decoder.options import DecoderOptions
from lamina.features.data import LabelledData
from lamina.features.options import KNNOptions
from lamina.interop.backbone import Backbone, Origin
from lamina.mim import MIM
from lamina.recipes.build import build_method
from lamina.recipes.recipe import Recipe
from lamina.runs.data_facts import DataFacts
from lamina.runs.run import Run

PLAIN, BEIT = NAMES[0], "beit_base_patch16_224"
NETWORKS = {name: (name, {}) for name in (*NAMES, BEIT)}
NETWORKS |= {"class tokens": (PLAIN, {"class_tokens": 3}), "decay": (PLAIN, {"residual_decay": 0.6})}
PREFIXED = [name for name in NETWORKS if name != "vit_medium_patch16_gap_240"]
MEAN, STD = (0.4, 0.5, 0.6, 0.45), (0.2, 0.25, 0.3, 0.22)
SIZE, N = (32, 48), 12


def recipe_of(network: str, channels: int, size: tuple[int, int]) -> Recipe:
    name, more = NETWORKS[network]
    sizes = {"image_size": size, "width": 24, "heads": 2, "in_chans": channels}
    recipe = toy_recipe(name, **sizes, mean=MEAN[:channels], std=STD[:channels], **more)
    if name == BEIT:  # takes masks by mask tokens alone
        encoder = replace(recipe.encoder, hide="replace")
        recipe = replace(recipe, encoder=encoder, decoder=DecoderOptions(kind="linear"))
    return replace(recipe, data=replace(recipe.data, eval_crop_share=1.0))


@cache
def built(network: str, channels: int = 3, size: tuple[int, int] = SIZE) -> tuple[MIM, Recipe]:
    """Kept by the tests as it is: what they change is a copy."""
    recipe = recipe_of(network, channels, size)
    return shaken(build_method(recipe)), recipe


def pixels(channels: int, size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    """Noise under stripes along rows, along columns, or none, by turns."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 120, (N, channels, *size), generator=generator)
    rows, columns = (torch.arange(s) // 4 % 2 * 120 for s in size)
    images[0::3] += rows[:, None]
    images[1::3] += columns
    return images.to(torch.uint8)


@dataclass(frozen=True)
class Case:
    """A method, and two sets of images with masks, cut into batches of `per`."""

    method: MIM
    recipe: Recipe
    images: torch.Tensor
    others: torch.Tensor
    mask: torch.Tensor
    per: int

    @property
    def batches(self):
        labels, keys = torch.arange(N) % 3, sample_keys(0, 0, torch.arange(N))
        return list(Batch(self.images, keys, self.mask, labels).split(self.per))

    @property
    def backbone(self):
        return Backbone(self.method.encoder, self.method.fusion, Origin("toy", None, self.recipe))

    @property
    def subjects(self):
        return {"m": ModelOnImages(self.backbone, self.batches)}

    @property
    def grid(self):
        return self.method.encoder.grid


def case_of(network: str, channels: int = 3, size: tuple[int, int] = SIZE) -> Case:
    method, recipe = built(network, channels, size)
    n = size[0] * size[1] // 64
    order = torch.rand(N, n, generator=torch.Generator().manual_seed(5)).argsort(1)
    return Case(method, recipe, pixels(channels, size), pixels(channels, size, 1), order < n * 3 // 4, N)


def turned_patches(value: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Rows of patches (B, P + N, ...) in the order of the transposed grid, the prefix first as before."""
    h, w = grid
    prefix, patches = value[:, : value.shape[1] - h * w], value[:, value.shape[1] - h * w :]
    return torch.cat([prefix, patches.unflatten(1, grid).transpose(1, 2).flatten(1, 2)], 1)


def swapped_axes(rows: torch.Tensor, attention) -> torch.Tensor:
    """Queries or keys with the channels that rotate by row in the place of those that rotate by column."""
    by_head = rows.unflatten(0, (attention.num_heads, 2 if attention.rotate_half else 1, -1))
    return by_head.roll(by_head.shape[2] // 2, 2).flatten(0, 2)


def parameter_otherwise(name: str, value: torch.Tensor, method: MIM, turn: bool) -> torch.Tensor:
    vit, grid = method.encoder.vit, method.encoder.grid
    if name.endswith("patch_embed.proj.weight"):
        return value.flip(1).transpose(2, 3) if turn else value.flip(1)
    if name.startswith("decoder.head"):
        tiles = value.view(8, 8, method.encoder.in_chans, -1).flip(2)
        return (tiles.transpose(0, 1) if turn else tiles).reshape_as(value)
    if not turn:
        return value
    if name.endswith("vit.pos_embed"):
        return turned_patches(value, grid)
    if name.endswith("relative_position_bias_table"):
        table = value[:-3].unflatten(0, (2 * grid[0] - 1, 2 * grid[1] - 1))
        return torch.cat([table.transpose(0, 1).flatten(0, 1), value[-3:]])
    if name.endswith("rope.freqs"):
        return value.flip(0)
    if getattr(vit, "rope", None) is not None and not getattr(vit, "rope_mixed", False):
        attention = vit.blocks[0].attn
        if ".attn.qkv." in name:
            q, k, v = value.chunk(3)
            return torch.cat([swapped_axes(q, attention), swapped_axes(k, attention), v])
        if name.endswith("attn.q_bias"):
            return swapped_axes(value, attention)
    return value


def otherwise(case: Case, turn: bool) -> Case:
    """The same problem with channels in reverse, other batches and, with `turn`, rows and columns swapped."""
    encoder = case.recipe.encoder
    changed = {"mean": encoder.mean[::-1], "std": encoder.std[::-1]}
    changed |= {"image_size": encoder.image_size[::-1]} if turn else {}
    recipe = replace(case.recipe, encoder=replace(encoder, **changed))
    method, state = build_method(recipe).eval(), case.method.state_dict()
    method.load_state_dict({n: parameter_otherwise(n, v, case.method, turn) for n, v in state.items()})
    mask = case.mask
    images, others = (x.flip(1).transpose(2, 3) if turn else x.flip(1) for x in (case.images, case.others))
    if turn:
        mask = turned_patches(mask[..., None], case.grid)[..., 0]
        if hasattr(method.decoder, "positions"):  # sines of rows in some channels, of columns in others
            method.decoder.positions = turned_patches(case.method.decoder.positions, case.grid)
    return Case(method, recipe, images, others, mask, 5)


# What each analysis finds, as numbers by name: those of a "map" are laid out as patches are.


def frequency(case, mode="exact", direction="radial", **more):
    found = analyze_frequency(case.subjects, mode=mode, direction=direction, **more).models["m"]
    assert found.grid == case.grid
    told = {f"{stage.layer} {stage.part}": stage.relative for stage in found.stages}
    bands = {k: np.array((b.low, b.high, b.share_high), float) for k, b in found.bands.items()}
    assert set(bands) == {"unnormed", "last", "fused"}
    return {**told, **bands, "frequencies": found.frequencies}


def attention(case):
    found = analyze_attention(case.subjects).models["m"]
    assert (found.grid, found.n_prefix) == (case.grid, case.method.encoder.n_prefix)
    told = {"uniform": found.uniform_distance}
    for layer in found.layers:
        told |= {f"{layer.layer} distance": layer.distance, f"{layer.layer} entropy": layer.entropy}
        told[f"prefix {layer.layer}"] = layer.prefix_mass
    return told


def similarity(case):
    pools = case.backbone.pools
    results = {pool: analyze_similarity(case.subjects, pool=pool, minibatch=6) for pool in pools}
    return {pool: np.array(result.between("m", "m"), float) for pool, result in results.items()}


def rank(case, views=0):
    found = analyze_rank(case.subjects, views=views).models["m"]
    assert len(found.curve) == 4
    each = {
        f"{s.pool} {s.place} {s.layer}": (s.rankme, s.effective_rank, s.lidar if views else 0)
        for s in found.scores
    }
    assert len(each) == 4 + 2 * len(case.backbone.pools)
    return each


def depth(case):
    labels, classes = (torch.arange(N) % 3).tolist(), ["rows", "columns", "none"]
    names = [f"{i}.png" for i in range(N)]
    parts = [ArraySource(images, names, labels, classes) for images in (case.images, case.others)]
    data, knn = LabelledData("stripes", *parts), KNNOptions(k=(3,))
    models = {"m": case.backbone}
    result = analyze_depth(models, data, protocols=("knn",), knn=knn, batch_size=case.per, workers=0)
    scores = result.models["m"].scores
    assert max(s.top1 for s in scores) > 0.7  # there is something to find
    return {f"{s.pool} {s.place} {s.layer}": (s.top1, s.validation_top1) for s in scores}


def patches(case, at=(1, 4)):
    at = at if case.grid[0] < case.grid[1] else at[::-1]
    found = analyze_patches(case.subjects, images=2, at=at).models["m"]
    told = {"explained": found.explained, "cosine": found.mean_cosine, "prefix": found.norms.prefix}
    told["norms"] = (found.norms.median, found.norms.threshold, found.norms.largest)
    assert found.grid == case.grid
    assert (found.without_attention is None) == (case.method.encoder.n_class > 0)
    for image in found.shown:
        maps = ("red", "green", "blue", "norms", "cosines")
        maps = (*maps, "attention") if case.method.encoder.n_class else maps
        for what in maps:
            place = f"cls map {image.key}" if what == "attention" else f"map {image.key} {what}"
            told[place] = np.array(getattr(image, what))
            assert told[place].shape == case.grid
    return told


def retrieval(case):
    found = analyze_retrieval(case.subjects, queries=4, k=3).models["m"]
    assert found.channels == case.method.encoder.in_chans
    judged = found.scores
    told = {"scores": (judged.precision, judged.mean_average_precision, judged.chance)}
    for query in found.queries:
        told[f"keys {query.image.key}"] = [image.key % 10**9 for image in query.neighbours]
        told[f"cosines {query.image.key}"] = [image.cosine for image in query.neighbours]
    return told


def reconstruction(case):
    found = analyze_reconstruction({"m": Filler(case.method, case.batches)}).models["m"]
    assert (found.grid, found.n_hidden) == (case.grid, 18)
    bands = [band.error for band in (found.mean, found.low, found.high)]
    return {"error": found.error, "original": found.original, "bands": bands, "mse": found.mse}


def hessian(case):
    method = deepcopy(case.method).requires_grad_()  # backbones freeze theirs
    batch = Batch(case.images[:2], None, case.mask[:2])
    (found,) = analyze_hessian({"m": method}, [batch], HessianOptions(top=1, tol=1e-5)).models["m"]
    return {"loss": found.loss, "ends": (found.top[0].value, found.bottom[0].value)}


def layers(case, tmp_path):
    """Of a run that logged once."""
    run = Run(tmp_path / f"run {case.per}")
    run.start(case.recipe, DataFacts("photos/", N, "0" * 64), None)
    batch = Batch(case.images, None, case.mask)
    row = FusionMonitor().on_log(1, {}, batch, case.method)
    run.metrics_file.write_text(json.dumps({"step": 1, "lr_sum": 0.1, **row}) + "\n")
    found = analyze_layers({"m": run.path}).runs["m"]
    assert (found.layers, found.depth) == ((0, 1, 2), 3)
    assert sum(found.shares[0]) == pytest.approx(1)
    return {"weights": found.weights, "shares": found.shares}


ANALYSES = {
    "frequency": frequency,
    "diagonal": lambda case: frequency(case, direction="diagonal"),
    "whole blocks": lambda case: frequency(case, sub_blocks=False),
    "attention": attention,
    "similarity": similarity,
    "rank": rank,
    "depth": depth,
    "patches": patches,
    "retrieval": retrieval,
    "reconstruction": reconstruction,
}


def assert_same(one, other, turned=False, tolerance=2e-3):
    assert one.keys() == other.keys()
    for name, value in one.items():
        expected = np.transpose(value) if turned and "map" in name else value
        np.testing.assert_allclose(other[name], expected, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("network", NETWORKS)
def test_rows_and_columns_channels_and_batches_may_be_swapped(network, channels, tmp_path):
    one = case_of(network, channels)
    other = otherwise(one, turn=True)
    for analyze in ANALYSES.values():
        assert_same(analyze(one), analyze(other), turned=True)
    assert_same(layers(one, tmp_path), layers(other, tmp_path), tolerance=1e-4)


@pytest.mark.parametrize("network", NETWORKS)
def test_curvature_views_and_the_published_spectrum_of_every_network(network):
    one = case_of(network)
    assert_same(hessian(one), hessian(otherwise(one, turn=True)))
    mirrored = otherwise(one, turn=False)  # views are crops by rows and columns
    assert_same(rank(one, views=2), rank(mirrored, views=2))
    with pytest.raises(LaminaError) as caught:
        frequency(one, "park-kim", "diagonal")
    assert str(caught.value) == (
        "mode park-kim is the diagonal of square grids with an even side, not diagonal on 4 x 6; take mode "
        "exact"
    )
    square = case_of(network, size=(32, 32))
    found = frequency(square, "park-kim", "diagonal")
    assert_same(found, frequency(otherwise(square, turn=True), "park-kim", "diagonal"))
    exact = frequency(square, direction="diagonal")  # at pi / 2, the one that both have
    assert found["2 mlp"][1] == pytest.approx(exact["2 mlp"][1])


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("network", [NAMES[0], NAMES[-1]])
def test_curvature_and_views_of_other_channels(network, channels):
    one = case_of(network, channels)
    assert_same(hessian(one), hessian(otherwise(one, turn=True)))
    assert_same(rank(one, views=2), rank(otherwise(one, turn=False), views=2))


def deaf(case: Case) -> Case:
    """Tokens that do not hear each other: attention adds nothing to them, in the encoder and the decoder."""
    method = deepcopy(case.method)
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if ".attn.proj." in name:
                parameter.zero_()
    return replace(case, method=method)


@pytest.mark.parametrize("network", [name for name in NETWORKS if name != "vit_medium_patch16_gap_240"])
def test_prefix_tokens_have_no_part_in_what_is_said_of_patches(network):
    one = deaf(case_of(network))
    other = replace(one, method=deepcopy(one.method))
    vit = other.method.encoder.vit
    with torch.no_grad():
        for token in (vit.cls_token, getattr(vit, "reg_token", None)):
            if token is not None:
                token += torch.randn(token.shape, generator=torch.Generator().manual_seed(3))
    for name, analyze in ANALYSES.items():
        before, after = ({k: v for k, v in analyze(case).items() if k[:3] != "cls"} for case in (one, other))
        prefix = {key: (before.pop(key), after.pop(key)) for key in [*before] if key.startswith("prefix")}
        assert_same(before, after, tolerance=1e-5)
        assert bool(prefix) == (name in ("attention", "patches"))
        for values in prefix.values():  # else nothing was changed
            assert not np.allclose(*values, rtol=1e-3)


@pytest.mark.parametrize("name", [name for name in ANALYSES if name != "depth"])
@pytest.mark.parametrize(
    ("size", "channels", "says"),
    [
        (SIZE, 4, "images have 4 channels, the encoder takes 3; set in_chans"),
        (
            (48, 32),
            3,
            "images are 48 x 32 px, the encoder takes 32 x 48; set image_size, or build the network with "
            "dynamic_img_size=True",
        ),
    ],
)
def test_images_that_do_not_fit_are_refused_with_a_sentence(name, size, channels, says):
    case = replace(case_of(PLAIN), images=pixels(channels, size))
    with pytest.raises(LaminaError) as caught:
        ANALYSES[name](case)
    assert str(caught.value) == says
