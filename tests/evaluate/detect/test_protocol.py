"""The detector against torchvision's own forward; what teaches and what does not; exact resume; wrong data."""

import shutil
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from helpers.dense_data import toy_backbone, toy_encoder
from helpers.detection import KINDS, SIZE, ToyObjects, toy_data, toy_objects
from helpers.runs import NAMES, toy_recipe, toy_run
from lamina.core.batch import Batch, Objects
from lamina.core.errors import LaminaError
from lamina.data.decode.unreadable import Unreadable
from lamina.data.dense.loader import DenseLoader
from lamina.data.options import DataOptions, DenseDataOptions
from lamina.evaluate.dense.images import DenseImages
from lamina.evaluate.detect.build import build_detector, estimate_detection, plan_detection
from lamina.evaluate.detect.data import DetectData
from lamina.evaluate.detect.detector import Detections, Detector
from lamina.evaluate.detect.head_options import AttentionOptions, HeadOptions
from lamina.evaluate.detect.inference import detect_images
from lamina.evaluate.detect.protocol import evaluate_detect
from lamina.evaluate.detect.recipes import DetectRecipe, detect_recipe, detect_recipes
from lamina.evaluate.detect.windows import DetectWindows
from lamina.evaluate.encoder_options import DenseEncoder
from lamina.evaluate.protocol import RunOptions
from lamina.evaluate.result_files import score_file
from lamina.evaluate.score import Score
from lamina.interop.load import load_encoder
from lamina.train import checkpoint
from lamina.train.distributed import Ranks
from lamina.train.options import TrainOptions

torch.set_num_threads(1)
HEAD = HeadOptions(
    scales=(2.0, 1.0, 0.5),
    channels=16,
    anchor_strides=3.0,
    proposal_convs=1,
    proposals_train=60,
    proposals_test=60,
    anchor_samples=64,
    region_samples=32,
    box_convs=1,
    box_width=32,
    mask_convs=1,
    least_score=0.2,
)
CPU = RunOptions(device="cpu", workers=0)


def short(steps: int = 4, **changes) -> DetectRecipe:
    """Some steps of four images with the toys' heads."""
    start = detect_recipe("detect-small")
    train = TrainOptions(max_steps=steps, batch_size=4, log_every_steps=2)
    chosen = replace(start, head=HEAD, train=train, data=DenseDataOptions(workers=0, prefetch_batches=1))
    return replace(chosen, **changes)


def detector(name: str = "vit_tiny_patch16_224", head: HeadOptions = HEAD, **changes) -> Detector:
    torch.manual_seed(0)
    return Detector(toy_encoder(name), len(KINDS), AttentionOptions(2, (2,)), head, **changes)


def batch_of(indices=(1, 2, 3), seed: int = 0, **more) -> Batch:
    source = toy_objects(6, seed, **more)
    images = torch.stack([source.images.images[i] for i in indices])
    return Batch(images, objects=tuple(source.objects[i] for i in indices))


def whole_rcnn(ours: Detector) -> GeneralizedRCNN:
    """torchvision's own class around the same parts, its resizing and normalisation made to do nothing."""

    class Maps(nn.Module):
        def forward(self, images):
            return OrderedDict(ours.maps(images))

    nothing = GeneralizedRCNNTransform(
        SIZE[0], SIZE[1], [0.0] * 3, [1.0] * 3, 1, fixed_size=(SIZE[1], SIZE[0]), _skip_resize=True
    )
    return GeneralizedRCNN(Maps(), ours.rpn, ours.roi_heads, nothing)


def test_losses_and_detections_are_those_of_torchvision():
    ours, batch = detector(), batch_of()
    images = list(batch.images.float() / 255)
    targets = [
        {"boxes": o.boxes[~o.crowd], "labels": o.labels[~o.crowd] + 1, "masks": o.masks[~o.crowd].byte()}
        for o in batch.objects
    ]
    theirs = whole_rcnn(ours)
    torch.manual_seed(5)
    expected = theirs.train()(images, targets)
    torch.manual_seed(5)
    terms = ours.train()(batch)
    assert set(terms) == {"loss", *expected}
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)
    torch.testing.assert_close(terms["loss"], sum(expected.values()))
    ours.roi_heads.score_thresh = 0.0
    for known, found in zip(theirs.eval()(images), ours.eval().detect(batch.images), strict=True):
        torch.testing.assert_close(found.boxes, known["boxes"])
        assert torch.equal(found.labels, known["labels"] - 1)
        torch.testing.assert_close(found.scores, known["scores"])
        assert found.masks.shape == (len(found.boxes), 28, 28)


def test_crowds_teach_nothing_and_images_without_objects_what_is_none():
    ours, batch = detector().train(), batch_of((1, 2))
    crowd = batch.objects[0]
    assert crowd.crowd.tolist() == [False, True]
    without = replace(batch, objects=(crowd.take(~crowd.crowd), batch.objects[1]))
    losses = []
    for each in (batch, without):
        torch.manual_seed(1)
        losses.append(ours(each)["loss"])
    assert losses[0] == losses[1]
    nothing = batch.objects[0].take(torch.zeros(2, dtype=torch.bool))
    terms = ours(replace(batch, objects=(nothing, nothing)))
    assert all(torch.isfinite(term) for term in terms.values())
    assert terms["loss_mask"] == 0
    assert terms["loss_objectness"] > 0
    terms["loss"].backward()
    assert all(p.grad is not None for p in ours.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", NAMES)
def test_every_network_is_trained_whole(name):
    ours = detector(name).train()
    ours(batch_of())["loss"].backward()
    assert not [n for n, p in ours.named_parameters() if p.requires_grad and p.grad is None]
    ids = ours.layer_ids()
    assert set(ids) == {n for n, p in ours.named_parameters() if p.requires_grad}
    assert {ids[n] for n in ids if n.startswith("encoder.vit.patch_embed")} == {0}
    assert {ids[n] for n in ids if "blocks.1." in n and n.startswith("encoder")} == {2}
    assert {ids[n] for n in ids if not n.startswith("encoder.")} == {4}


def test_a_frozen_encoder_stays_as_it_is_and_out_of_checkpoints():
    ours = detector(frozen=True).train()
    ours(batch_of())["loss"].backward()
    assert all(p.grad is None for p in ours.encoder.parameters())
    assert not ours.encoder.training
    assert ours.untracked_state() == {"encoder."}
    assert all(p.grad is not None for p in ours.pyramid.parameters())


@pytest.mark.parametrize("channels", [1, 4])
def test_any_channels(channels):
    encoder = toy_encoder(in_chans=channels, mean=(0.4,) * channels, std=(0.2,) * channels)
    ours = Detector(encoder, 2, AttentionOptions(), HEAD).train()
    assert torch.isfinite(ours(batch_of(channels=channels))["loss"])


def test_half_precision_leaves_losses_and_boxes_in_single():
    ours, batch = detector().train(), batch_of()
    seen = []
    ours.roi_heads.register_forward_pre_hook(lambda module, given: seen.append(given[1][0].dtype))
    terms = []
    for on in (False, True):
        torch.manual_seed(2)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=on):
            terms.append(ours(batch))
    assert seen == [torch.float32] * 2
    assert all(term.dtype == torch.float32 for term in terms[1].values())
    assert terms[1]["loss"].item() == pytest.approx(terms[0]["loss"].item(), rel=0.05)


def test_boxes_alone_are_learned_where_there_are_no_masks(tmp_path):
    data = toy_data(has_masks=False)
    planned = plan_detection(toy_backbone(), data, short())
    assert not planned.recipe.head.masks
    assert any("boxes alone" in note for note in planned.notes)
    score = evaluate_detect(toy_backbone(), data, replace(CPU, out=tmp_path), recipe=short(2))
    assert "bbox_AP50" in score.more
    assert not [name for name in score.more if name.startswith("segm")]


def test_what_is_found_lies_in_the_image_at_its_own_size():
    """Images of other sizes than the window: an oracle that finds the whole of what it is shown."""

    class Oracle(Detector):
        def detect(self, images, sizes=None):
            assert images.shape[-2:] == (32, 48)
            whole = [torch.tensor([[0.0, 0.0, width, height]]) for height, width in sizes]
            ones = torch.ones(1, 28, 28)
            return [Detections(box, torch.zeros(1, dtype=torch.int64), torch.ones(1), ones) for box in whole]

    for size in ((64, 96), (50, 40), (16, 90), (32, 48)):
        oracle = Oracle(toy_encoder(), 1, AttentionOptions(), HEAD)
        masks = torch.ones(1, *size, dtype=torch.bool)
        box = torch.tensor([[0.0, 0.0, size[1], size[0]]])
        label = torch.zeros(1, dtype=torch.int64)
        objects = [Objects(box, label, masks, torch.zeros(1, dtype=torch.bool))] * 5
        source = ToyObjects(toy_objects(5, 0, size).images, objects)
        windows = DetectWindows(batch_size=2).resolved((32, 48), (8, 8))
        images = DenseImages(source, 3, DataOptions(workers=0))
        tested = detect_images(oracle, images, windows, (0.5,) * 3, torch.device("cpu"))
        assert len(tested.coco) == 5
        for kind in ("bbox", "segm"):
            assert tested.coco.precision(kind).mean == pytest.approx(1)
        torch.testing.assert_close(tested.shown[0].found.boxes, box)


def test_the_test_window_shows_the_whole_image_as_large_as_it_can():
    windows = DetectWindows(size=(100, 160)).resolved((1, 1), (16, 16))
    assert windows.pixels == (112, 160)
    assert windows.training().base == 160
    assert windows.training().side == "long"
    assert windows.whole(112, 160).resized == (112, 160)
    assert windows.whole(500, 500).resized == (112, 112)
    assert windows.whole(1, 1000).resized == (1, 160)
    assert windows.whole(56, 70).resized == (112, 140)


def test_it_learns_what_it_is_shown(tmp_path):
    """Bright ellipses of two colours, from weights that were never trained."""
    chosen = short(60, window=DetectWindows(scale=(1.0, 1.0), flip=0.5))
    chosen = replace(chosen, optim=replace(chosen.optim, base_lr=0.3, layer_decay=None, warmup_steps=10))
    data = DetectData("toys", toy_objects(40, 0), toy_objects(20, 1))
    score = evaluate_detect(toy_backbone(), data, replace(CPU, out=tmp_path / "out"), recipe=chosen)
    assert score.metric == "bbox_mAP"
    assert score.more["bbox_AP50"] > 0.5
    assert score.more["segm_AP50"] > 0.5
    assert score.value > 0.2
    assert 0 <= score.more["AP50 red"] <= 1
    assert score.interval is None
    assert any("no interval" in note for note in score.notes)
    assert Score.read(tmp_path / "out" / "score.json") == score
    with Image.open(tmp_path / "out" / "detections.png") as picture:
        assert min(picture.size) > 300


def test_a_resumed_training_is_the_same_to_the_last_bit(tmp_path):
    toy_run(tmp_path / "run", toy_recipe())
    data = toy_data()
    chosen = short(4, encoder=DenseEncoder(drop_path=0.2))
    every = replace(chosen, train=replace(chosen.train, checkpoint_every_steps=1, keep_checkpoints=9))
    whole = evaluate_detect(tmp_path / "run", data, CPU, recipe=every)
    folder = Path(whole.settings["folder"])
    assert folder.parent == tmp_path / "run" / "evaluations"
    assert Score.read(score_file(whole)) == whole
    shutil.copytree(folder, tmp_path / "copy")
    for step in (3, 4):
        shutil.rmtree(tmp_path / "copy" / "checkpoints" / f"step-{step}")
    going = replace(CPU, out=tmp_path / "copy", resume=True)
    again = evaluate_detect(tmp_path / "run", data, going, recipe=chosen)
    last = [checkpoint.read(place / "checkpoints" / "step-4").model for place in (folder, tmp_path / "copy")]
    assert all(torch.equal(tensor, last[1][name]) for name, tensor in last[0].items())
    assert again.value == whole.value
    assert again.more == whole.more
    other = replace(going, seed=1)
    with pytest.raises(LaminaError, match=r"seed"):
        evaluate_detect(tmp_path / "run", data, other, recipe=chosen)


def test_it_starts_from_the_models_weights():
    backbone = toy_backbone()
    planned = plan_detection(backbone, toy_data(), short()).placed(CPU)
    state = build_detector(planned).encoder.vit.state_dict()
    for name, tensor in backbone.encoder.vit.state_dict().items():
        assert torch.equal(state[name], tensor)
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    heads = [build_detector(planned.placed(replace(CPU, seed=seed))).rpn for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(1), expected)
    weights = [next(head.parameters()) for head in heads]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_batches_are_windows_with_boxes():
    planned = plan_detection(toy_backbone(), toy_data(), short())
    recipe = planned.recipe
    assert recipe.window.pixels == (32, 48)
    loader = DenseLoader(
        planned.data.train,
        DataOptions(workers=0),
        recipe.window.training(),
        0,
        4,
        in_chans=3,
        fill=planned.fill,
    )
    (batch,) = loader.batches(0, 1)
    assert batch.images.shape == (4, 3, 32, 48)
    assert all((each.boxes[:, 2:] > each.boxes[:, :2]).all() for each in batch.objects)


def test_published_recipes_are_vitdets():
    recipe = detect_recipes()["coco-vitdet-b"]()
    assert recipe.optim.base_lr * recipe.train.batch_size / 256 == pytest.approx(1e-4)
    assert (recipe.train.max_steps, recipe.train.batch_size) == (184_375, 64)
    assert [round(share * 184_375) for share in recipe.optim.milestones] == [163_889, 177_546]
    assert (recipe.optim.weight_decay, recipe.optim.layer_decay, recipe.optim.warmup_steps) == (0.1, 0.7, 250)
    assert not recipe.optim.decay_tokens
    assert (recipe.window.pixels, recipe.window.scale) == ((1024, 1024), (0.1, 2.0))
    assert recipe.attention.window == 14
    assert recipe.encoder.drop_path == 0.1
    assert HeadOptions() == recipe.head
    larger = {size: detect_recipe(f"coco-vitdet-{size}") for size in "lh"}
    assert {
        size: (each.train.max_steps, each.optim.layer_decay, each.encoder.drop_path)
        for size, each in larger.items()
    } == {"l": (184_375, 0.8, 0.4), "h": (138_281, 0.9, 0.5)}
    with pytest.raises(LaminaError, match="did you mean detect-small"):
        detect_recipe("detect")


def test_memory_is_counted_without_computing():
    """More for larger windows, and about in proportion to the images at a time."""
    planned = plan_detection(toy_backbone(), toy_data(), short())
    one, two = (estimate_detection(planned, n) for n in (1, 2))
    assert one.weights == two.weights > 4 * one.parameters
    assert one.training == 12 * one.parameters
    assert two.activations == pytest.approx(2 * one.activations, rel=0.05)
    masks = replace(planned, recipe=replace(planned.recipe, head=replace(HEAD, masks=False)))
    assert estimate_detection(masks).activations < one.activations


def test_memory_of_a_vit_b_on_coco_is_as_the_docs_say():
    """80 classes, windows of 1024 px."""
    data = toy_data()
    kinds = tuple(f"class {i}" for i in range(80))
    many = DetectData("coco", replace(data.train, classes=kinds), replace(data.test, classes=kinds))
    planned = plan_detection(
        load_encoder("vit_base_patch16_224", pretrained=False), many, detect_recipe("coco-vitdet-b")
    )
    one, two = (estimate_detection(planned, n) for n in (1, 2))
    gib = 2**30
    assert round((one.weights + one.training) / gib, 1) == 1.7
    assert round((two.total - one.total) / gib, 1) == 3.6


def changed(part: ToyObjects, **changes) -> ToyObjects:
    """The objects with some of their tensors made anew."""
    return replace(
        part,
        objects=[each._replace(**{k: make(each) for k, make in changes.items()}) for each in part.objects],
    )


def test_data_that_teach_nothing_are_one_line():
    good, backbone = toy_objects(), toy_backbone()
    nothing = replace(good, objects=[each.take(torch.zeros(0, dtype=torch.int64)) for each in good.objects])
    high = changed(good, labels=lambda each: each.labels + 9)
    empty = changed(good, boxes=lambda each: each.boxes * torch.tensor([1.0, 1.0, 0.0, 0.0]))
    for train, test, message in (
        (nothing, good, "nothing is labelled in the training part"),
        (good, nothing, "nothing is labelled in the validation part"),
        (high, good, "nothing is labelled in the training part .11 unreadable"),
        (good, empty, "nothing is labelled in the validation part .11 unreadable"),
        (replace(good, classes=("a", "b")), good, "classes of odd differ"),
        (replace(good, classes=()), replace(good, classes=()), "no classes"),
        (toy_objects(0), good, "no training images"),
    ):
        with pytest.raises(LaminaError, match=message):
            plan_detection(backbone, DetectData("odd", train, test), short())
    with pytest.raises(LaminaError, match="there is no folder nowhere"):
        plan_detection(backbone, "nowhere", short())


def test_images_without_objects_are_not_trained_on():
    toys = toy_objects(6, broken=(4,))  # the first has none
    crowded = [each._replace(crowd=each.crowd | (i == 2)) for i, each in enumerate(toys.objects)]
    data = DetectData("toys", replace(toys, objects=crowded), toys)
    planned = plan_detection(toy_backbone(), data, short())
    train = planned.data.train
    assert [train.images.name(i) for i in range(len(train.images))] == ["0/1", "0/3", "0/4", "0/5"]
    assert torch.equal(train.read_objects(1).boxes, toys.objects[3].boxes)
    assert torch.equal(train.images.read(1), toys.images.read(3))
    with pytest.raises(Unreadable, match="made so"):
        train.read_objects(2)
    assert planned.notes == ("training images without objects to learn are left out: 2",)
    again = plan_detection(toy_backbone(), planned.data, short())
    assert again.notes == planned.notes
    assert again.settings("detect") == planned.settings("detect")
    loaders = [
        planned.loader(
            DataOptions(workers=n), planned.recipe.window.training(), Ranks(0, 1, torch.device("cpu"))
        )
        for n in (0, 2)
    ]
    alone, beside = (list(loader.batches(0, 2)) for loader in loaders)
    for one, two in zip(alone, beside, strict=True):
        assert torch.equal(one.images, two.images)
    assert planned.settings("detect")["training_images"] == 4
    assert len(planned.data.test.images) == 6


def test_what_is_odd_but_can_be_used_is_said():
    good, backbone = toy_objects(), toy_backbone()
    green = changed(good, labels=lambda each: torch.ones_like(each.labels))
    planned = plan_detection(backbone, DetectData("odd", green, good), short())
    assert any("validation alone, 'red'" in note for note in planned.notes)
    one = replace(changed(good, labels=lambda each: torch.zeros_like(each.labels)), classes=("thing",))
    notes = plan_detection(backbone, DetectData("odd", one, one), short()).notes
    assert notes == ("training images without objects to learn are left out: 1",)
    lossy = plan_detection(
        backbone, DetectData("odd", replace(good, left_out={"without a box": 3}), good), short()
    )
    assert any(
        "3 annotations of the training part are left out: 3 without a box" in note for note in lossy.notes
    )
    few = plan_detection(backbone, toy_data(3), short())
    assert few.recipe.train.batch_size == 2
    assert any("batch 2" in note for note in few.notes)
    sized = plan_detection(backbone, toy_data(), short(window=DetectWindows(size=(30, 41))))
    assert sized.encoder.image_size == (32, 48)
    assert any("32 x 48 px" in note for note in sized.notes)


def test_options_that_do_not_fit_are_one_line(tmp_path):
    with pytest.raises(LaminaError, match="global_blocks"):
        plan_detection(toy_backbone(), toy_data(), short(attention=AttentionOptions(2, (7,))))
    with pytest.raises(LaminaError, match="scales"):
        replace(HEAD, scales=(3.0,))
    with pytest.raises(LaminaError, match=r"window\.size"):
        DetectWindows(size=(1, 2, 3))
    with pytest.raises(LaminaError, match="--out"):
        evaluate_detect(toy_backbone(), toy_data(), CPU, recipe=short())
    with pytest.raises(LaminaError, match="images with objects"):
        detector()(Batch(torch.rand(1, 3, *SIZE)))
