"""DICOM: values against the equations of PS3.3, pixels against other encodings of the same image, and damage."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lamina.data.check import check
from lamina.data.decode.decode import Decoded, decode, decode_file, image_size
from lamina.data.decode.notes import NoteKind
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.open import open_source
from lamina.data.options import DataOptions, Decoding

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed (extra: dicom)")
from pydicom.data import get_testdata_file  # noqa: E402
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate, generate_frames  # noqa: E402
from pydicom.pixels.processing import apply_windowing  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid  # noqa: E402

RNG = np.random.default_rng(0)
CT = "1.2.840.10008.5.1.4.1.1.2"


def made(array: np.ndarray, **elements: Any) -> bytes:
    """A file of (H, W), (frames, H, W) or, with SamplesPerPixel=3, (H, W, 3) values."""
    ds = Dataset()
    colour = elements.get("SamplesPerPixel", 1) == 3
    ds.SOPClassUID, ds.SOPInstanceUID = CT, generate_uid()
    ds.Rows, ds.Columns = array.shape[-3:-1] if colour else array.shape[-2:]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    if array.ndim == 3 and not colour:
        ds.NumberOfFrames = len(array)
    if colour:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = ds.BitsStored = 8 * array.itemsize
    ds.PixelRepresentation = int(array.dtype.kind == "i")
    for name, value in elements.items():
        setattr(ds, name, value)
    ds.HighBit = ds.BitsStored - 1
    if "PixelData" not in ds:
        ds.PixelData = array.tobytes()
    ds["PixelData"].VR = "OB" if ds.BitsAllocated == 8 else "OW"
    return written(ds, elements.get("syntax", ExplicitVRLittleEndian))


def written(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPClassUID = CT
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", generate_uid())
    stream = io.BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def read(content: bytes, **options: Any) -> Decoded:
    return decode(io.BytesIO(content), DataOptions(**options).decoding(None))


def refused(content: bytes, words: str | None = None, **options: Any) -> Reason:
    with pytest.raises(Unreadable, match=words) as found:
        read(content, **options)
    return found.value.reason


def shipped(name: str, **options: Any) -> Decoded:
    return decode_file(str(get_testdata_file(name, download=False)), DataOptions(**options).decoding(None))


# --- grey values ------------------------------------------------------------------------------------------

HOUNSFIELD = RNG.integers(-1000, 2000, (20, 30)).astype(np.int16)


@pytest.mark.parametrize(
    ("function", "width"),
    [("LINEAR", 400), ("LINEAR", 1), ("LINEAR_EXACT", 400), ("SIGMOID", 400), (None, 350.5)],
)
def test_the_first_window_maps_rescaled_values(function: str | None, width: float) -> None:
    values = HOUNSFIELD + 1024
    more = {} if function is None else {"VOILUTFunction": function}
    content = made(
        values,
        RescaleSlope=2,
        RescaleIntercept=-1024,
        WindowCenter=[40, 900],
        WindowWidth=[width, 50],
        **more,
    )
    found = read(content)
    x, c, w = values * 2.0 - 1024, 40.0, float(width)
    if function == "SIGMOID":  # C.11.2.1.3.1
        expected = 1 / (1 + np.exp(-4 * (x - c) / w))
    elif function == "LINEAR_EXACT":  # C.11.2.1.3.2
        expected = np.clip((x - c) / w + 0.5, 0, 1)
    else:  # C.11.2.1.2.1
        low, high = c - 0.5 - (w - 1) / 2, c - 0.5 + (w - 1) / 2
        expected = np.where(
            x <= low, 0.0, np.where(x > high, 1.0, ((x - (c - 0.5)) / max(w - 1, 1e-9)) + 0.5)
        )
    assert np.allclose(found.image[0], expected, atol=1e-6)
    (note,) = found.notes
    assert note.kind == NoteKind.WINDOWED
    assert note.detail.startswith(f"centre 40, width {width:g}")
    assert "the first of 2" in note.detail
    ds = pydicom.dcmread(io.BytesIO(content))  # the same by pydicom, in the range of its output
    other = apply_windowing(x, ds)
    low, high = (-(2**15)) * 2 - 1024.0, (2**15 - 1) * 2 - 1024.0
    assert np.allclose((other - low) / (high - low), found.image[0], atol=1e-6)


def test_windows_that_differ_between_files_are_counted(tmp_path: Path) -> None:
    for k in range(3):
        content = made(HOUNSFIELD, WindowCenter=40 + 10 * (k // 2), WindowWidth=4001)
        (tmp_path / f"{k}.dcm").write_bytes(content)
    (line, *_) = check(open_source(str(tmp_path)), DataOptions(workers=0), 1).notes
    assert line.startswith("3 images: values mapped to 0 to 1 by the file's own first window")
    assert ", by 2 different ones (the first is 0.dcm: centre 40, width 4001" in line


def test_a_given_range_takes_the_place_of_windows() -> None:
    content = made(
        HOUNSFIELD + 1024, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400
    )
    found = read(content, value_range="-500:1500")
    assert np.allclose(found.image[0], np.clip((HOUNSFIELD + 500) / 2000, 0, 1), atol=1e-6)
    assert [note.kind for note in found.notes] == [NoteKind.CLIPPED]
    assert found.notes[0].found == int(((HOUNSFIELD < -500) | (HOUNSFIELD > 1500)).sum())


def test_a_value_without_data_is_not_passed_over_where_a_file_has_a_window() -> None:
    content = made(HOUNSFIELD, WindowCenter=40, WindowWidth=400)
    assert refused(content, "together with data.value_range", nodata=-2000.0) is Reason.PIXEL_TYPE
    assert read(content).image.shape[-2:] == HOUNSFIELD.shape


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_unsigned_values_without_a_window_are_over_the_largest_of_their_bits(bits: int) -> None:
    values = RNG.integers(0, 2**bits, (9, 7)).astype(np.uint8 if bits == 8 else np.uint16)
    found = read(made(values, BitsStored=bits)).image[0].double()
    most = 255 if bits == 8 else 1
    assert np.allclose(found / most, values / (2**bits - 1), atol=1e-6)
    inverted = read(made(values, BitsStored=bits, PhotometricInterpretation="MONOCHROME1")).image[0].double()
    assert np.allclose(inverted / most, 1 - values / (2**bits - 1), atol=1e-6)


def test_monochrome1_is_inverted_after_a_window_and_after_a_range() -> None:
    values = RNG.integers(0, 4096, (9, 7)).astype(np.uint16)
    for options in ({}, {"value_range": "1000:3000"}):
        one, two = (
            read(
                made(values, WindowCenter=2000, WindowWidth=900, PhotometricInterpretation=f"MONOCHROME{k}"),
                **options,
            ).image
            for k in (1, 2)
        )
        assert np.allclose(one, 1 - two)


@pytest.mark.parametrize(
    "elements", [{"RescaleSlope": 3.5, "RescaleIntercept": 0}, {"RescaleIntercept": -1, "RescaleSlope": 1}]
)
def test_rescaled_and_signed_values_without_a_window_are_refused(elements: dict[str, float]) -> None:
    unsigned = RNG.integers(0, 4096, (9, 7)).astype(np.uint16)
    words = "rescaled values without a window; .*--data.value-range LOW:HIGH"
    assert refused(made(unsigned, **elements), words) is Reason.PIXEL_TYPE
    assert refused(made(HOUNSFIELD), "int16 values without a window") is Reason.PIXEL_TYPE
    assert refused(made(HOUNSFIELD, WindowCenter=4, WindowWidth=0), "without a window") is Reason.PIXEL_TYPE


def test_tables_map_values_as_they_say() -> None:
    values = RNG.integers(0, 8, (9, 7)).astype(np.uint16)
    entries = RNG.integers(0, 1024, 6)
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [6, 1, 10], entries.tolist()  # the first entry is for 1 and below
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "US"
    looked_up = entries[np.clip(values.astype(int) - 1, 0, 5)]
    found = read(made(values, VOILUTSequence=[table]))
    assert np.allclose(found.image[0], looked_up / 1023, atol=1e-6)
    assert [note.kind for note in found.notes] == [NoteKind.WINDOWED]
    table.ModalityLUTType, table.LUTDescriptor = "HU", [6, 1, 16]
    modality = read(made(values, ModalityLUTSequence=[table]), value_range="0:1023")
    assert np.allclose(modality.image[0], looked_up / 1023, atol=1e-6)


def test_frames_of_the_enhanced_kind_have_a_rescaling_and_a_window_each() -> None:
    frames = RNG.integers(0, 1000, (3, 9, 7)).astype(np.uint16)
    groups = []
    for k in range(3):
        rescaling, group = Dataset(), Dataset()
        rescaling.RescaleSlope, rescaling.RescaleIntercept = k + 1, -100 * k
        group.PixelValueTransformationSequence = [rescaling]
        groups.append(group)
    window, shared = Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = 500.5, 1001
    shared.FrameVOILUTSequence = [window]
    content = made(frames, PerFrameFunctionalGroupsSequence=groups, SharedFunctionalGroupsSequence=[shared])
    expected = np.stack([np.clip((frames[k] * (k + 1.0) - 100 * k) / 1000, 0, 1) for k in range(3)])
    volume = read(content, pages="channels")
    assert np.allclose(volume.image, expected, atol=1e-6)
    assert NoteKind.FRAMES not in {note.kind for note in volume.notes}
    first = read(content)
    assert np.allclose(first.image, expected[:1], atol=1e-6)
    assert NoteKind.FRAMES in {note.kind for note in first.notes}
    own = Dataset()
    own.WindowCenter, own.WindowWidth = 250.5, 501
    groups[1].FrameVOILUTSequence = [own]  # in the place of the one that all share
    content = made(frames, PerFrameFunctionalGroupsSequence=groups, SharedFunctionalGroupsSequence=[shared])
    expected[1] = np.clip((frames[1] * 2.0 - 100) / 500, 0, 1)
    assert np.allclose(read(content, pages="channels").image, expected, atol=1e-6)


def test_a_dose_is_in_its_unit() -> None:
    ds = pydicom.dcmread(get_testdata_file("rtdose.dcm", download=False))
    dose = ds.pixel_array * float(ds.DoseGridScaling)
    found = shipped("rtdose.dcm", pages="channels", value_range=f"0:{dose.max()}")
    assert found.image.shape == (15, 10, 10)
    assert np.allclose(found.image, dose / dose.max(), atol=1e-6)


# --- colours ----------------------------------------------------------------------------------------------


def test_a_palette_becomes_its_colours() -> None:
    values = RNG.integers(0, 16, (9, 7), dtype=np.uint8)
    tables = RNG.integers(0, 65536, (3, 16)).astype(np.uint16)
    elements: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [16, 0, 16]
        elements[f"{colour}PaletteColorLookupTableData"] = table.tobytes()
    found = read(made(values, **elements))
    assert np.allclose(found.image, tables[:, values] / 65535, atol=1e-6)


def test_ybr_becomes_rgb_as_in_jpeg() -> None:
    rgb = RNG.integers(0, 256, (20, 16, 3), dtype=np.uint8)
    ybr = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    found = read(made(ybr, SamplesPerPixel=3, PhotometricInterpretation="YBR_FULL"))
    assert found.mode == "YBR_FULL"
    expected = np.asarray(Image.fromarray(ybr, mode="YCbCr").convert("RGB")).astype(int)
    assert np.abs(found.image.numpy().astype(int) - np.moveaxis(expected, -1, 0)).max() <= 1
    plain = read(made(rgb, SamplesPerPixel=3, PhotometricInterpretation="RGB"))
    assert np.array_equal(plain.image, np.moveaxis(rgb, -1, 0))


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
        "MR_small_padded.dcm",
    ],
)
def test_the_same_image_however_it_is_stored(name: str) -> None:
    assert np.array_equal(shipped(name).image, shipped("MR_small.dcm").image)


def test_a_jpeg_frame_is_what_pillow_reads_of_it() -> None:
    name = "SC_rgb_dcmtk_+eb+cy+np.dcm"
    ds = pydicom.dcmread(get_testdata_file(name, download=False))
    (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
    expected = np.asarray(Image.open(io.BytesIO(frame)).convert("RGB"))
    assert np.abs(shipped(name).image.numpy().astype(int) - np.moveaxis(expected, -1, 0)).max() <= 2


def test_colour_frames_become_channels_one_after_the_other() -> None:
    frames = pydicom.dcmread(get_testdata_file("SC_rgb_rle_2frame.dcm", download=False)).pixel_array
    found = shipped("SC_rgb_rle_2frame.dcm", pages="channels")
    assert np.array_equal(found.image, np.moveaxis(frames, -1, 1).reshape(6, *frames.shape[1:3]))


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.pixels.decoders import JPEGLSLosslessDecoder

    if not JPEGLSLosslessDecoder.is_available:
        with pytest.raises(Unreadable, match=r"JPEG-LS.*install .*pyjpegls"):
            shipped("MR_small_jpeg_ls_lossless.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert refused(made(HOUNSFIELD), r"pip install 'lamina\[dicom\]'") is Reason.PIXEL_TYPE


# --- damage -----------------------------------------------------------------------------------------------


def test_what_is_cut_off_or_changed_is_unreadable_and_nothing_else() -> None:
    contents = [
        Path(get_testdata_file(name, download=False)).read_bytes()
        for name in ("MR_small.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm")
    ]
    how, n = DataOptions(max_decode_mb=64).decoding(None), 0
    for content in contents:
        for k in range(40):
            damaged = bytearray(content)
            if k % 2:
                damaged = damaged[: int(RNG.integers(132, len(content)))]
            else:
                for place in RNG.integers(132, min(len(content), 3000), 8):
                    damaged[place] = RNG.integers(256)
            try:
                decode(io.BytesIO(bytes(damaged)), how)
            except Unreadable:
                n += 1
    assert n > 60


def test_sizes_that_are_announced_alone_are_refused_undecoded() -> None:
    small = np.zeros((4, 4), np.uint16)
    large = made(small, Rows=65535, Columns=65535)
    assert refused(large, "max_pixels") is Reason.TOO_LARGE
    assert (
        refused(made(small, Rows=60_000, Columns=2000, NumberOfFrames=500), "max_decode_mb", pages="channels")
        is Reason.TOO_LARGE
    )
    assert refused(made(small, Rows=600, Columns=200)) is Reason.BROKEN


def deflated(content: bytes, behind: bytes = b"") -> bytes:
    """The file with all that stands behind its first elements deflated, and more zeros after it."""
    end = 144 + struct.unpack_from("<I", content, 140)[0]
    meta = content[132:end].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    meta = meta.replace(b"UI\x14\x001.2.840.10008.1.2.1.99", b"UI\x16\x001.2.840.10008.1.2.1.99")
    meta = meta[:8] + struct.pack("<I", len(meta) - 12) + meta[12:]
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    return content[:132] + meta + stream.compress(content[end:] + behind) + stream.flush()


def test_a_deflated_file_is_read_and_a_bomb_is_not() -> None:
    content = made(RNG.integers(0, 4096, (9, 7)).astype(np.uint16), BitsStored=12)
    assert np.array_equal(read(deflated(content)).image, read(content).image)
    bomb = deflated(content, bytes(64 << 20))
    assert len(bomb) < 1 << 17
    with pytest.raises(Unreadable, match="max_decode_mb") as found:
        read(bomb, max_decode_mb=8)
    assert found.value.reason is Reason.TOO_LARGE
    assert shipped("image_dfl.dcm").image.shape == (1, 512, 512)


def test_compressed_frames_are_as_large_as_the_file_says_or_refused() -> None:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((64, 48, 3), np.uint8)).save(stream, "JPEG")
    elements = {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422", "syntax": JPEGBaseline8Bit}
    pixels = encapsulate([stream.getvalue()])
    whole = made(np.zeros((64, 48, 3), np.uint8), PixelData=pixels, **elements)
    assert read(whole).image.shape == (3, 64, 48)
    other = made(np.zeros((8, 48, 3), np.uint8), PixelData=pixels, **elements)
    assert refused(other, "states 48 x 64 px in an image of 48 x 8") is Reason.BROKEN
    more = made(np.zeros((64, 48, 3), np.uint8), PixelData=pixels, NumberOfFrames=2, **elements)
    assert refused(more, pages="channels") is Reason.BROKEN


def test_many_scans_would_take_too_long() -> None:
    stream = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(stream, "JPEG", progressive=True)
    frame = stream.getvalue()
    scan = frame.rindex(b"\xff\xda")
    frame = frame[:-2] + frame[scan:-2] * 3000 + b"\xff\xd9"
    content = made(
        np.zeros((64, 64, 3), np.uint8), PixelData=encapsulate([frame]), SamplesPerPixel=3,
        PhotometricInterpretation="YBR_FULL_422", syntax=JPEGBaseline8Bit,
    )  # fmt: skip
    assert refused(content, "scans", max_decode_seconds=0.5) is Reason.TOO_SLOW


def test_files_without_an_image_say_what_they_are() -> None:
    with pytest.raises(Unreadable, match=r"without an image .*SR Storage"):
        shipped("test-SR.dcm")


# --- folders ----------------------------------------------------------------------------------------------


def test_files_without_an_ending_are_found_by_their_mark(tmp_path: Path) -> None:
    content = made(RNG.integers(0, 4096, (9, 7)).astype(np.uint16), BitsStored=12)
    for name in ("IM0001", "1.2.840.113619.2.55", "a.dcm", "b.DICOM", "DICOMDIR", "c.bin", ".hidden"):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "README").write_text("no image " * 40)
    (tmp_path / "SHORT").write_bytes(b"DICM")
    (tmp_path / "link").symlink_to(tmp_path / "IM0001")
    source = open_source(str(tmp_path))
    assert [source.name(i) for i in range(len(source))] == [
        "1.2.840.113619.2.55",
        "IM0001",
        "a.dcm",
        "b.DICOM",
    ]
    assert "3 without an ending" in " ".join(source.notes)
    assert source.size(1) == (9, 7)
    parts = tmp_path / "parts"
    for part in ("train", "val"):
        (parts / part).mkdir(parents=True)
        (parts / part / "IM1").write_bytes(content)
    assert [open_source(str(parts), part).name(0) for part in ("train", "val")] == ["train/IM1", "val/IM1"]


def test_a_tiff_with_the_mark_is_a_tiff() -> None:
    values = RNG.integers(0, 256, (40, 40), dtype=np.uint8)
    tags = {256: 40, 257: 40, 258: 8, 259: 1, 262: 1, 273: 0, 277: 1, 278: 40, 279: values.size}
    tags[273] = 132 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    content = b"II*\0" + struct.pack("<I", 132) + bytes(120) + b"DICM"
    content += struct.pack("<H", len(tags)) + entries + bytes(4) + values.tobytes()
    assert np.array_equal(read(content).image[0], values)
    how = Decoding()
    assert image_size(io.BytesIO(content), how) == (40, 40)
    assert image_size(open(str(get_testdata_file("MR_small.dcm", download=False)), "rb"), how) == (64, 64)  # noqa: SIM115
