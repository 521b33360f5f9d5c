"""What a cluster has made, beside what one machine has made of the same."""

import filecmp
import re
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file

from benchmarks.cluster.place import Place
from cxr_assets.radiographs.dataset import MANIFEST_FILE
from cxr_serving.model import store

# Sums of float32 in another order, as with trainer.devices.
RTOL, ATOL = 1e-4, 1e-5
# Of a version, and of MLflow's runs.
_OF_ITS_OWN = re.compile(r"\d{8}T\d{6}Z-|\b[0-9a-f]{32}\b")
# Beside the data root of one machine: where jobs were, each of which deletes its files.
_OF_A_CLUSTER = {"jobs"}


def compare(here: Place, there: Place) -> None:
    """Raise an AssertionError unless a cluster has made what one machine has made."""
    alone, spread = here.layout, there.layout
    differ = (_paths(spread.root) - _OF_A_CLUSTER) ^ _paths(alone.root)
    assert not differ, f"one alone has {sorted(differ)}"
    images = [path.relative_to(alone.processed) for path in alone.processed.rglob("*.png")]
    assert images
    _, *unlike = filecmp.cmpfiles(alone.processed, spread.processed, images, shallow=False)
    assert unlike == [[], []], f"PNGs differ: {unlike}"
    manifests = (pd.read_parquet(root.processed / MANIFEST_FILE) for root in (alone, spread))
    pd.testing.assert_frame_equal(*manifests)
    [ours], [theirs] = (list(root.embeddings.glob("*.safetensors")) for root in (alone, spread))
    assert ours.name == theirs.name
    torch.testing.assert_close(load_file(ours), load_file(theirs), rtol=0, atol=0)
    for asset in ("convnext_model", "dinov2_probe"):
        one, other = (store.latest(root.models(asset)) for root in (alone, spread))
        assert one.name[-8:] == other.name[-8:], "where something runs is no part of it"
        weights = (load_file(bundle / "model.safetensors") for bundle in (one, other))
        torch.testing.assert_close(*weights, rtol=RTOL, atol=ATOL)
        table, other_table = (pd.read_csv(bundle / "history.csv") for bundle in (one, other))
        columns = ["epoch", "train_loss", "val_loss"]
        pd.testing.assert_frame_equal(table[columns], other_table[columns], rtol=RTOL, atol=ATOL)
        [local], [remote] = (place.trainings(asset) for place in (here, there))
        assert local == remote, "in MLflow"
        assert local.epochs == table["epoch"].tolist()


def _paths(root: Path) -> set[str]:
    """Of all files and folders, without what has another name each time."""
    return {_OF_ITS_OWN.sub("", str(path.relative_to(root))) for path in root.rglob("*")}
