"""Two retrainings at once on one data root, each with a Dagster instance of its own."""

import re
from pathlib import Path

from faults.retraining import Place, Retraining

from cxr_serving.model import store

# The other has replaced the dataset: after the fit, before the export, or while it was read.
OVERTAKEN = re.compile(r"ha(s|ve) changed since|materialise processed_dataset again")


def test_the_same_retraining_twice_at_once_trains_once(tmp_path: Path) -> None:
    places = [Place(tmp_path / "data", tmp_path / name) for name in ("one", "two")]
    both = [Retraining(place) for place in places]
    assert [retraining.wait() for retraining in both] == [[], []]
    bundles = places[0].layout.models("convnext_model")
    [version] = store.versions(bundles)
    assert store.latest(bundles).name == version


def test_two_graphs_on_one_data_root_never_mix_their_images(tmp_path: Path, tries: int) -> None:
    """Whoever prepares last goes on; the other fails, publishes nothing, and can be repeated."""
    places = [
        Place(tmp_path / "data", tmp_path / name, [f"seed={seed}", f"data.seed={seed}"])
        for seed, name in enumerate(("one", "two"))
    ]
    layout = places[0].layout
    before = [place.overrides for place in places]
    for attempt in range(tries):
        for place, overrides in zip(places, before, strict=True):
            place.overrides = (*overrides, f"model.lr={0.001 * (attempt + 1)}")
        both = [Retraining(place) for place in places]
        results = [retraining.wait() for retraining in both]
        for place, errors in zip(places, results, strict=True):
            assert all(OVERTAKEN.search(error) for error in errors), errors
            if errors:
                assert Retraining(place).wait() == []
    versions = store.versions(layout.models("convnext_model"))
    records = [store.verify(layout.models("convnext_model") / version) for version in versions]
    assert len({(record.seed, record.data_version) for record in records}) == 2
