"""The bar of images: silent where nobody watches, and its rate is that of the pass it is in."""

import re
import time

import pytest

from lamina.cli.progress import ImagesBar


def test_nothing_is_written_where_stderr_is_no_terminal(capsys):
    with ImagesBar() as bar:
        for done in (7, 14, 20):
            bar(done, 20, 0.25)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize("second", [5, 20])
def test_a_terminal_is_told_images_rate_and_waiting(capsys, monkeypatch, second):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with ImagesBar() as bar:
        bar(10, 20, 0.5)
        time.sleep(0.1)
        bar(20, 20, 0.25)
        bar._progress.refresh()
        time.sleep(0.3)
        bar(second, 40, 0.75)
        bar._progress.refresh()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    rate = float(re.search(r"20/20.* ([\d.]+) images/s {2}data wait 25%", shown)[1])
    assert 20 < rate <= 100
    assert re.search(rf"{second}/40 .*data wait 75%", shown)
    assert not re.search(rf"{second}/40 .*images/s", shown)  # the first batch of a pass has no rate yet
