"""A compiled forward is one graph: nothing in it asks for a value that the device has not computed yet."""

import json
import subprocess
import sys

CASES = [
    ("mae", "none", False),
    ("mae", "none", True),
    ("mae", "mff", True),
    ("fast-mff", "mff", True),
]
"""Recipe, fusion, and whether the loader gives the masks; else the method draws them."""

COUNT = """
import json, sys
from dataclasses import replace
import torch
from lamina.core.batch import Batch
from lamina.core.config import merge
from lamina.core.rng import sample_keys
from lamina.methods.catalog import recipe
from lamina.recipes.build import build_method, resolve

tiny = {"image_size": [16, 16], "patch_size": 4, "width": 24, "depth": 2, "heads": 2}
counts = []
for name, fusion, given in json.loads(sys.argv[1]):
    layers = {"layers": "all"} if fusion == "mff" else {}
    decoder = {"width": 16, "depth": 2, "heads": 2}
    changed = {"encoder": tiny, "decoder": decoder, "fusion": {"kind": fusion, **layers}}
    method = build_method(resolve(merge(recipe(name), changed))).train()
    keys = sample_keys(0, 0, torch.arange(4))
    batch = Batch(torch.zeros(4, 3, 16, 16, dtype=torch.uint8), keys)
    if given:
        batch = replace(batch, mask=method.masking(keys, method.encoder.grid))
    torch._dynamo.reset()
    found = torch._dynamo.explain(method)(batch)
    counts.append([found.graph_count, found.graph_break_count])
print(json.dumps(counts))
"""


def test_a_forward_is_one_graph():
    """In a process of its own, since the checks of shapes in tests would break the graphs."""
    command = [sys.executable, "-c", COUNT, json.dumps(CASES)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    assert json.loads(done.stdout.splitlines()[-1]) == [[1, 0]] * len(CASES)
