"""COCO's average precision of boxes and masks, computed by faster-coco-eval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import t
from torch import Tensor

from lamina.core.batch import Objects
from lamina.core.errors import LaminaError
from lamina.core.intervals import SHARE, interval_within
from lamina.evaluate.detect.detector import Detections
from lamina.evaluate.detect.paste_masks import paste

Kind = Literal["bbox", "segm"]
GROUPS = 20
"""Parts of the test images, each left out once for the interval."""
_AREAS = ("all", "small", "medium", "large")


@dataclass(frozen=True)
class AveragePrecision:
    """Average precisions by COCO's rules: means over classes with objects, of recalls from 0 to 1; NaN where
    there is no such object."""

    mean: float
    """Over IoU thresholds from 0.5 to 0.95."""
    at50: float
    at75: float
    small: float
    """Over objects of less than 32 x 32 px; `medium` is up to 96 x 96 px, and `large` from there on."""
    medium: float
    large: float
    recall: float
    """Mean recall over the thresholds, with 100 detections of an image."""
    of_class: tuple[float, ...]
    """Each class's mean over the thresholds."""
    of_class_at50: tuple[float, ...]


@dataclass
class CocoEvaluation:
    """Truth and detections of images in COCO's form, and their evaluation.

    An object's area is that of its mask, also for boxes, as in COCO's own annotations. Crowds are no object
    to find, and no detection within one is wrong.

    Raises:
        LaminaError: where faster-coco-eval is not installed.
    """

    classes: tuple[str, ...]
    masks: bool
    """Whether masks are evaluated too."""
    _images: list[dict[str, Any]] = field(default_factory=list)
    _truth: list[dict[str, Any]] = field(default_factory=list)
    _found: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Find out at once what is missing."""
        check_metric()

    def __len__(self) -> int:
        return len(self._images)

    def add(self, truth: Objects, found: Detections, size: tuple[int, int]) -> None:
        """One image of `size`, height and width in px; both sides have boxes in its px."""
        number = len(self._images) + 1  # COCO's matching takes an id of 0 for none
        self._images.append({"id": number, "height": size[0], "width": size[1]})
        for box, label, mask, crowd in zip(*truth, strict=True):
            entry = _entry(number, box, int(label))
            entry |= {"id": len(self._truth) + 1, "iscrowd": int(crowd), "area": float(mask.sum())}
            self._truth.append(entry | ({"segmentation": encode(mask)} if self.masks else {}))
        for i, score in enumerate(found.scores.tolist()):
            entry = _entry(number, found.boxes[i], int(found.labels[i])) | {"score": score}
            if self.masks and found.masks is not None:
                entry["segmentation"] = encode(paste(found.masks[i], found.boxes[i], size))
            self._found.append(entry)

    def precision(self, kind: Kind, images: Sequence[int] | None = None) -> AveragePrecision:
        """The precision on all images, or on some of them, by their numbers in the order of `add`."""
        evaluator = self._evaluator(kind)
        return _evaluated(evaluator, range(len(self)) if images is None else images)

    def interval(self, kind: Kind, value: float) -> tuple[float, float] | None:
        """The 95 % interval of the mean precision over the choice of test images: a delete-a-group jackknife
        of `GROUPS` groups, Student's t on the logit scale, so that no end leaves [0, 1]. None for fewer
        images than twice the groups."""
        n = len(self._images)
        if n < 2 * GROUPS or value != value:
            return None
        evaluator = self._evaluator(kind)
        left = [[i for i in range(n) if i % GROUPS != group] for group in range(GROUPS)]
        without = [_evaluated(evaluator, images).mean for images in left]
        spread = float(np.sqrt((GROUPS - 1) * np.var(without)))
        half = float(t.ppf(0.975, GROUPS - 1)) * spread
        return interval_within(value, half, SHARE)

    def _evaluator(self, kind: Kind) -> Any:
        from faster_coco_eval import COCO, COCOeval_faster

        categories = [{"id": i + 1, "name": name} for i, name in enumerate(self.classes)]
        # Copies: the evaluation writes into what it is given.
        truth = [dict(entry) for entry in self._truth]
        known = COCO({"images": self._images, "annotations": truth, "categories": categories})
        found = known.loadRes([_for(kind, entry) for entry in self._found])
        return COCOeval_faster(known, found, kind, print_function=lambda *line: None, separate_eval=True)


def _evaluated(evaluator: Any, images: Sequence[int]) -> AveragePrecision:
    """COCO's evaluation of some of the images."""
    evaluator.params.imgIds = [i + 1 for i in images]
    evaluator.evaluate()
    evaluator.accumulate()
    return _read(evaluator.eval["precision"][..., -1], evaluator.eval["recall"][..., -1])


def check_metric() -> None:
    """Raise where faster-coco-eval is not installed."""
    try:
        import faster_coco_eval  # noqa: F401
    except ImportError:
        raise LaminaError("COCO's metrics need faster-coco-eval; pip install 'lamina[dense]'") from None


def encode(mask: Bool[Tensor, "H W"]) -> dict[str, Any]:
    """A mask as COCO's compressed run lengths."""
    from faster_coco_eval.core import mask as codec

    plain = np.asfortranarray(mask.cpu().numpy().astype(np.uint8))
    return codec.encode(plain)  # type: ignore[no-any-return]


def _entry(image: int, box: Float[Tensor, "4"], label: int) -> dict[str, Any]:
    x1, y1, x2, y2 = box.tolist()
    return {"image_id": image, "category_id": label + 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}


def _for(kind: Kind, entry: dict[str, Any]) -> dict[str, Any]:
    """A detection by its box, or by its mask, whose own area says how large it is."""
    left_out = "segmentation" if kind == "bbox" else "bbox"
    return {name: value for name, value in entry.items() if name != left_out}


def _read(
    precision: Float[np.ndarray, "thresholds recalls classes areas"],
    recall: Float[np.ndarray, "thresholds classes areas"],
) -> AveragePrecision:
    """COCO's summary, in which -1 stands for what there is no object of."""
    sizes = {area: _mean(precision[..., i]) for i, area in enumerate(_AREAS)}
    whole = precision[..., 0]
    return AveragePrecision(
        sizes["all"],
        _mean(whole[0]),
        _mean(whole[5]),
        sizes["small"],
        sizes["medium"],
        sizes["large"],
        _mean(recall[..., 0]),
        tuple(_mean(whole[..., k]) for k in range(whole.shape[-1])),
        tuple(_mean(whole[0, :, k]) for k in range(whole.shape[-1])),
    )


def _mean(values: Float[np.ndarray, "*shape"]) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")
