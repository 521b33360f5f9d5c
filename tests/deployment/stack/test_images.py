from pathlib import Path

import pytest
from composition import OURS, ROOT

from deploy.stack.composition import Composition, read
from deploy.stack.images import ImageError, of


@pytest.fixture(scope="module")
def described() -> Composition:
    return read(ROOT / "docker-compose.yml", {})


@pytest.mark.parametrize("name", OURS)
def test_an_image_that_is_built_is_what_the_dockerfile_says(
    name: str, described: Composition
) -> None:
    image = of(described.services[name], {})
    assert image.user[:3] == ("cxr", 1000, 1000)
    assert image.environment["CXR_DATA_ROOT"] == "/data"
    assert image.environment["PATH"].startswith(f"{ROOT}/.venv/bin:/opt/venv/bin:/usr/local/sbin")
    assert "/data" in image.folders
    if name == "serving":
        assert image.files == {}
    else:
        assert image.directory == image.environment["DAGSTER_HOME"]
        assert {file: place.name for file, place in image.files.items()} == {
            f"{image.directory}/dagster.yaml": "dagster.yaml",
            f"{image.directory}/workspace.yaml": "workspace.yaml",
        }
        assert all(place.is_file() for place in image.files.values())


def test_the_root_of_an_image_replaces_the_checkout(described: Composition, tmp_path: Path) -> None:
    service = described.services["webserver"]
    image = of(service, {"pipeline": tmp_path})
    assert image.root == tmp_path
    assert image.files == {}
    assert image.environment["PATH"].startswith("/opt/venv/bin:")
    assert of(service, {"serving": tmp_path}) == of(service, {})


def test_what_this_machine_has_not_is_said(described: Composition) -> None:
    grafana = described.services["grafana"]
    with pytest.raises(ImageError, match="grafana/grafana"):
        of(grafana, {})
    other = described.services["serving"].model_copy(update={"user": "nobody"})
    with pytest.raises(ImageError, match="no user nobody"):
        of(other, {})
