"""Files of tensors have the same bytes for the same content, and damage to them is seen."""

import hashlib

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lamina.core.plain_files import DamagedFile
from lamina.core.tensor_files import load_tensors, save_tensors

TENSORS = {
    "b.weight": torch.arange(6, dtype=torch.float32).view(2, 3),
    "a.bias": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "ids": torch.tensor([3, 1], dtype=torch.int64),
    "scalar": torch.tensor(0.25),
}
METADATA = {"lamina": '{"step": 3, "name": "žluť\\u0007"}', "z": "1", "other": "2", "y": "3"}


def test_the_same_content_has_the_same_bytes(tmp_path):
    digests = set()
    for i in range(12):  # five keys: the library's own order is the sorted one in 1 of 120
        order = dict(list(METADATA.items())[:: 1 if i % 2 else -1])
        save_tensors(dict(reversed(TENSORS.items())) if i % 2 else TENSORS, tmp_path / "a.safetensors", order)
        digests.add(hashlib.sha256((tmp_path / "a.safetensors").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_what_is_written_is_safetensors_to_others(tmp_path):
    save_tensors(TENSORS, tmp_path / "a.safetensors", METADATA)
    found = load_file(tmp_path / "a.safetensors")
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)
    with safe_open(tmp_path / "a.safetensors", framework="pt") as opened:
        metadata = opened.metadata()
    assert {name: metadata[name] for name in METADATA} == METADATA
    assert metadata["format"] == "pt"
    assert load_tensors(tmp_path / "a.safetensors")[1] == {"format": "pt", **METADATA}


def test_no_flipped_bit_and_no_cut_changes_tensors_or_metadata(tmp_path):
    file = tmp_path / "a.safetensors"
    save_tensors(TENSORS, file, METADATA)
    data, refused = file.read_bytes(), 0
    cases = [
        data[:i] + bytes([data[i] ^ 1 << bit]) + data[i + 1 :] for i in range(len(data)) for bit in (1, 5)
    ]
    cases += [data[:n] for n in range(0, len(data), 7)]
    for damaged in cases:
        file.write_bytes(damaged)
        try:
            found, metadata = load_tensors(file)
        except DamagedFile:
            refused += 1
            continue
        # What passes is a flip in the name of the digest, or in the white space at the header's end.
        assert found.keys() == TENSORS.keys()
        assert all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)
        assert {name: metadata.get(name) for name in METADATA} == METADATA
    assert refused > 0.9 * len(cases)


def test_a_file_without_a_digest_is_taken(tmp_path):
    save_file(TENSORS, tmp_path / "old.safetensors", metadata=METADATA)
    assert load_tensors(tmp_path / "old.safetensors")[1] == METADATA


def test_a_device_and_a_missing_file(tmp_path):
    (tmp_path / "a.safetensors").symlink_to("/dev/zero")
    with pytest.raises(DamagedFile, match="no plain file"):
        load_tensors(tmp_path / "a.safetensors", links=True)
    with pytest.raises(FileNotFoundError):
        load_tensors(tmp_path / "b.safetensors")
