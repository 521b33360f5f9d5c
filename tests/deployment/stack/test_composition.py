"""The parser of docker-compose.yml: what it reads, and that it ignores nothing."""

from pathlib import Path

import pytest
import yaml
from composition import ROOT, SERVICES

from deploy.stack.composition import CompositionError, read

FILE = ROOT / "docker-compose.yml"


def written(folder: Path, **service: object) -> Path:
    """A file with one service."""
    file = folder / "docker-compose.yml"
    content = {"name": "cxr", "services": {"web": {"image": "web:1.0", **service}}}
    file.write_text(yaml.safe_dump(content))
    return file


def test_every_service_of_the_project_is_understood() -> None:
    found = read(FILE, {})
    assert sorted(found.services) == sorted(SERVICES)
    serving = found.services["serving"]
    assert serving.command == ("cxr", "serve")
    assert serving.environment["CXR_FOLLOW"] == "released"
    assert "CXR_PIN" not in serving.environment
    assert serving.restart == "unless-stopped"
    assert serving.stop_grace_period == 30
    assert serving.mem_limit == 6 * 2**30
    assert serving.healthcheck is not None
    assert serving.healthcheck.command[0] == "python"
    assert serving.healthcheck.start_period == 180
    mounts = {mount.target: mount for mount in serving.volumes}
    assert (mounts["/data/models"].source, mounts["/data/models"].volume.subpath) == (
        "data",
        "models",
    )
    assert (mounts["/keys"].type, mounts["/keys"].source) == ("bind", "./keys")
    assert all(mount.read_only for mount in serving.volumes)


def test_a_busy_machine_gets_more_time_but_is_asked_as_often() -> None:
    before = read(FILE, {})
    for name, service in before.patient(2.5).services.items():
        check, usual = service.healthcheck, before.services[name].healthcheck
        assert service.stop_grace_period == 2.5 * before.services[name].stop_grace_period
        assert (check is None) is (usual is None)
        if check is not None and usual is not None:
            assert check.start_period == 2.5 * usual.start_period
            assert check.timeout == 2.5 * usual.timeout
            assert check.retries >= 2.5 * usual.retries
            assert (check.interval, check.start_interval) == (usual.interval, usual.start_interval)


def test_settings_come_from_the_environment() -> None:
    found = read(FILE, {"CXR_FOLLOW": "newest", "CXR_EXPERIMENT": "full"})
    assert found.services["serving"].environment["CXR_FOLLOW"] == "newest"
    assert found.services["code-location"].environment["CXR_EXPERIMENT"] == "full"


@pytest.mark.parametrize(
    ("service", "problem"),
    [
        ({"mem_limits": "1g"}, "services.web.mem_limits: Extra inputs are not permitted"),
        ({"healthcheck": {"test": ["CMD", "true"], "retry": 3}}, "healthcheck.retry: Extra inputs"),
        ({"healthcheck": {"test": ["CMD"], "interval": "5 s"}}, "'5 s' is no duration"),
        ({"mem_limit": "1.5g"}, "'1.5g' is no size"),
        ({"restart": "always"}, "services.web.restart: Input should be"),
        ({"volumes": ["data:/data:rw"]}, "is not source:target or source:target:ro"),
        ({"volumes": ["data:/data"]}, "web names the volume data, which does not exist"),
        ({"secrets": ["key"]}, "web names the secret key, which does not exist"),
        ({"depends_on": {"db": {"condition": "service_started"}}}, "names the service db, which"),
        ({"depends_on": {"web": {"condition": "service_healthy"}}}, "web, which has no check"),
        ({"environment": {"KEY": "${KEY:?is not set}"}}, "KEY is not set"),
    ],
)
def test_what_is_not_understood_is_an_error(
    service: dict[str, object], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(CompositionError) as error:
        read(written(tmp_path, **service), {})
    assert problem in str(error.value)


def test_a_key_that_is_unknown_at_the_top_is_an_error(tmp_path: Path) -> None:
    file = written(tmp_path)
    file.write_text(file.read_text() + "networks: {}\nx-ours: {}\n")
    with pytest.raises(CompositionError, match="networks: Extra inputs"):
        read(file, {})


@pytest.mark.parametrize(
    ("text", "value"),
    [("$$HOME", "$HOME"), ("${A}", "1"), ("${B:-two}", "two"), ("${A:-two}", "1"), ("${B}", "")],
)
def test_variables_are_replaced_as_compose_does(text: str, value: str, tmp_path: Path) -> None:
    found = read(written(tmp_path, environment={"KEY": text}), {"A": "1"})
    assert found.services["web"].environment["KEY"] == value
