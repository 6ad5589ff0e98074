"""Subjects of analyses: names, the same images for every model, and what is held out."""

import numpy as np
import pytest
import torch
from PIL import Image

from lamina.analyze.models import Images, subsample
from lamina.analyze.output import Summary
from lamina.analyze.session import AnalysisSession
from lamina.core.errors import LaminaError
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.open import held_out
from lamina.data.options import AS_STORED
from lamina.data.sources import ArraySource


def source(n: int = 7) -> ArraySource:
    return ArraySource(torch.rand(n, 1, 8, 8), [f"image {i}" for i in range(n)])


def test_some_images_are_drawn_once_in_order_and_alike():
    drawn = [subsample(source(100), 10, seed=s) for s in (0, 0, 1)]
    names = [[part.name(i) for i in range(len(part))] for part in drawn]
    assert names[0] == names[1] != names[2]
    places = [int(name.split()[1]) for name in names[0]]
    assert len(set(places)) == 10
    assert places == sorted(places)
    whole = source()
    assert subsample(whole, None) is whole
    assert subsample(whole, 7) is whole
    with pytest.raises(LaminaError, match="1 or more"):
        subsample(whole, 0)


def test_images_can_be_gone_through_again():
    images = Images(source(), (8, 8), 1, batch_size=3)
    rounds = [torch.cat([batch.keys for batch in images]).tolist() for _ in range(2)]
    assert rounds == [list(range(7))] * 2


class Torn(ArraySource):
    """Every third image cannot be read."""

    def inspect(self, i, how=AS_STORED):
        if i % 3 == 0:
            raise Unreadable(Reason.BROKEN)
        return super().inspect(i, how)


def test_images_that_could_not_be_read_and_what_was_passed_over_are_said():
    torn = Torn(torch.rand(7, 1, 8, 8), [str(i) for i in range(7)])
    torn.notes = ("1 file passed over",)
    images = Images(subsample(torn, 6), (8, 8), 1, batch_size=4)
    assert images.notes() == ("1 file passed over",)
    for _ in range(2):  # counted once, however often they are gone through
        seen = sum(len(batch) for batch in images)
        _, unread = images.notes()
        assert unread.startswith(
            f"{6 - seen} of 6 images could not be read: {6 - seen} truncated or corrupt; the"
        )


def test_an_analysis_says_them_in_its_summary():
    told = Summary(("model",), (("mae",),), ("kept",))
    session = AnalysisSession.__new__(AnalysisSession)
    images = source(2)
    images.notes = ("odd",)
    session._images = [Images(images, (8, 8), 1)] * 2
    assert session._with_image_notes(told).notes == ("kept", "odd")


def test_held_out_is_what_training_does_not_see(tmp_path):
    assert held_out("sample:photos") == "val"
    for part in ("train", "val"):
        for name in "ab":
            (tmp_path / part / name).mkdir(parents=True)
            Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / part / name / "0.png")
    assert held_out(tmp_path) == "val"
    assert held_out(str(tmp_path / "train")) == "all"
    assert held_out([tmp_path]) == "all"
