from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.stack import images

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def compose() -> dict[str, Any]:
    """docker-compose.yml with its merge keys resolved and its variables left as written."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return content


@pytest.fixture(scope="session")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


@pytest.fixture(scope="session")
def stages() -> dict[str, list[tuple[str, str]]]:
    """(instruction, arguments) of each stage of the Dockerfile, after those of its parent."""
    return images.stages()
