"""What a cluster has made, beside what one machine has made of the same."""

import filecmp

import pandas as pd
import torch
from safetensors.torch import load_file

from cxr_assets.layout import Layout
from cxr_serving.model import store

# Sums of float32 in another order, as with trainer.devices.
RTOL, ATOL = 1e-4, 1e-5


def compare(alone: Layout, spread: Layout) -> None:
    """Raise an AssertionError unless a cluster has made what one machine has made."""
    made = sorted(path.relative_to(alone.processed) for path in alone.processed.rglob("*.png"))
    assert made
    _, *differ = filecmp.cmpfiles(alone.processed, spread.processed, made, shallow=False)
    assert differ == [[], []], f"PNGs differ: {differ}"
    [ours], [theirs] = (list(root.embeddings.glob("*.safetensors")) for root in (alone, spread))
    assert ours.name == theirs.name
    torch.testing.assert_close(load_file(ours), load_file(theirs), rtol=0, atol=0)
    for asset in ("convnext_model", "dinov2_probe"):
        one, other = (store.latest(root.models(asset)) for root in (alone, spread))
        assert one.name[-8:] == other.name[-8:], "where something runs is no part of it"
        weights = (load_file(bundle / "model.safetensors") for bundle in (one, other))
        torch.testing.assert_close(*weights, rtol=RTOL, atol=ATOL)
        history = (pd.read_csv(bundle / "history.csv") for bundle in (one, other))
        columns = ["epoch", "train_loss", "val_loss"]
        pd.testing.assert_frame_equal(*(table[columns] for table in history), rtol=RTOL, atol=ATOL)
