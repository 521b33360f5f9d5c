from pathlib import Path

from cxr_assets.layout import Layout


def test_no_two_places_are_the_same_and_all_are_below_the_root() -> None:
    layout = Layout(Path("/data"))
    places = [
        getattr(layout, name) for name, value in vars(Layout).items() if isinstance(value, property)
    ]
    places += [
        layout.models("convnext_model"),
        layout.models("dinov2_probe"),
        layout.work("a" * 64),
    ]
    assert len(set(places)) == len(places) > 15
    assert all(place.is_relative_to("/data") for place in places)
