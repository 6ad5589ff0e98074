"""The fifteen corruptions by their published names."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from lamina.core.errors import LaminaError

KINDS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
"""Names as ImageNet-C's folders have them, in the published order."""

SEVERITIES = (1, 2, 3, 4, 5)


def available_kinds() -> tuple[str, ...]:
    """The kinds that can be generated here: all fifteen, without frost where its photographs are missing."""
    return tuple(kind for kind in KINDS if kind != "frost" or frost_folder() is not None)


def check_corruption(kind: str, severity: int) -> None:
    """Refuse what `corrupt` cannot do, before any image is read.

    Raises:
        LaminaError: for an unknown kind or severity, or frost without its photographs.
    """
    if kind not in KINDS:
        raise LaminaError(f"there is no corruption {kind!r}; take {', '.join(KINDS)}")
    if severity not in SEVERITIES:
        raise LaminaError(f"a corruption's severity is 1, 2, 3, 4 or 5, not {severity}")
    if kind == "frost" and frost_folder() is None:
        raise LaminaError(FROST_MISSING)


FROST_FILES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg", "frost6.jpg")
"""Names in the package's folder `frost`."""

FROST_MISSING = "frost needs photographs of frost: pip install 'lamina[robustness]', or leave frost out"


def frost_folder() -> Path | None:
    """Where the photographs are; None if they are not installed. Nothing of the package is imported."""
    found = find_spec("imagecorruptions")
    places = () if found is None else found.submodule_search_locations or ()
    folders = (Path(place) / "frost" for place in places)
    return next((each for each in folders if all((each / file).is_file() for file in FROST_FILES)), None)
