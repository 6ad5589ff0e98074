"""Small images with objects in the colours of their classes, in memory."""

from dataclasses import dataclass, field

import torch

from lamina.core.batch import Objects
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.dense.crops import boxes_around
from lamina.data.dense.sources import ObjectSource
from lamina.data.options import AS_STORED
from lamina.data.sources import ArraySource
from lamina.evaluate.detect.data import DetectData
from lamina.evaluate.detect.detector import Detections

KINDS = ("red", "green")
SIZE = (32, 48)


@dataclass
class ToyObjects(ObjectSource):
    """What `toy_objects` makes."""

    images: ArraySource
    objects: list[Objects]
    classes: tuple[str, ...] = KINDS
    broken: tuple[int, ...] = ()
    has_masks: bool = True
    left_out: dict[str, int] = field(default_factory=dict)

    def read_objects(self, i, how=AS_STORED):
        if i in self.broken:
            raise Unreadable(Reason.LABELS, "made so")
        return self.objects[i]


def toy_objects(n=12, seed=0, size=SIZE, channels=3, **more) -> ToyObjects:
    """Dark noise with none to two bright ellipses; the first image has none, the second a crowd beside."""
    generator = torch.Generator().manual_seed(seed)
    images = 30 * torch.rand(n, channels, *size, generator=generator)
    objects = []
    for i in range(n):
        count = 0 if i == 0 else 1 + i % 2
        masks = torch.zeros(count, *size, dtype=torch.bool)
        labels = torch.randint(0, len(KINDS), (count,), generator=generator)
        for k in range(count):
            height, width = torch.randint(size[0] // 4, size[0] // 2 + 2, (2,), generator=generator).tolist()
            top = int(torch.randint(0, size[0] - height + 1, (1,), generator=generator))
            left = k * size[1] // 2 + int(
                torch.randint(0, size[1] // 2 - width + 1, (1,), generator=generator)
            )
            y = (torch.arange(size[0]) + 0.5 - top - height / 2) / (height / 2)
            x = (torch.arange(size[1]) + 0.5 - left - width / 2) / (width / 2)
            masks[k] = y[:, None] ** 2 + x**2 <= 1
            images[i, int(labels[k]) % channels, masks[k]] = 230.0
        crowd = torch.tensor([i == 1 and k == 1 for k in range(count)], dtype=torch.bool)
        objects.append(Objects(boxes_around(masks), labels, masks, crowd))
    source = ArraySource(images.to(torch.uint8), [f"{seed}/{i}" for i in range(n)])
    return ToyObjects(source, objects, **more)


def toy_data(n=12, n_test=6, **more) -> DetectData:
    """Training and test images."""
    return DetectData("toys", toy_objects(n, 0, **more), toy_objects(n_test, 1, **more))


def guesses(objects: Objects, seed: int, size=SIZE) -> Detections:
    """Boxes near the true ones and some anywhere, labels and scores by lot, masks like ellipses with noise."""
    generator = torch.Generator().manual_seed(seed)
    near = objects.boxes + size[0] / 16 * torch.randn(objects.boxes.shape, generator=generator)
    corners = torch.rand(6, 2, 2, generator=generator) * torch.tensor([size[1], size[0]])
    boxes = torch.cat([near, torch.cat([corners.amin(1), corners.amax(1)], dim=1)])
    boxes = torch.cat([boxes[:, :2], torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)], dim=1)
    labels = torch.randint(0, len(KINDS), (len(boxes),), generator=generator)
    right = torch.rand(len(near), generator=generator) < 0.7
    labels[: len(near)] = torch.where(right, objects.labels, labels[: len(near)])
    scores = torch.rand(len(boxes), generator=generator).sort(descending=True).values
    place = (torch.arange(28) + 0.5) / 14 - 1
    inside = 1.5 - place[:, None] ** 2 - place**2
    masks = (inside + 0.3 * torch.randn(len(boxes), 28, 28, generator=generator)).clamp(0, 1)
    return Detections(boxes, labels, scores, masks)
