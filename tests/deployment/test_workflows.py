import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONLINT = Path(sys.executable).parent / "actionlint"


def load(name: str) -> dict[Any, Any]:
    workflow: dict[Any, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text())
    return workflow


def steps(workflow: dict[Any, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job.get("steps", [])]


def test_actionlint_finds_nothing() -> None:
    done = subprocess.run([ACTIONLINT, *WORKFLOWS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_actionlint_finds_a_wrong_expression(tmp_path: Path) -> None:
    broken = tmp_path / "release.yml"
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    broken.write_text(text.replace("matrix.target", "matrix.targe"))
    done = subprocess.run([ACTIONLINT, broken], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "targe" in done.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflow_reads_only_unless_a_job_says_more(path: Path) -> None:
    workflow = load(path.name)
    assert workflow["permissions"] == {"contents": "read"}
    writing = {
        name: job["permissions"] for name, job in workflow["jobs"].items() if "permissions" in job
    }
    assert writing in ({}, {"image": {"contents": "read", "packages": "write"}})


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_to_a_major_version(path: Path) -> None:
    used = [step["uses"] for step in steps(load(path.name)) if "uses" in step]
    assert used
    assert [name for name in used if not re.fullmatch(r"[\w-]+/[\w-]+@v\d+", name)] == []


def test_ci_tests_the_python_versions_that_the_package_admits() -> None:
    workflow = load("ci.yml")
    job = workflow["jobs"]["test"]
    classifiers = re.findall(
        r"Programming Language :: Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text()
    )
    assert job["strategy"]["matrix"]["python"] == classifiers
    assert "make test PYTHON=python" in [step.get("run") for step in job["steps"]]


def test_commands_of_ci_name_services_and_modules_that_exist() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    commands = [step["run"] for step in steps(load("ci.yml")) if "run" in step]
    executed = [
        name for command in commands for name in re.findall(r"compose exec -T (\S+)", command)
    ]
    assert executed
    assert set(executed) <= services.keys()


def test_release_builds_every_image_of_the_compose_file() -> None:
    matrix = load("release.yml")["jobs"]["image"]["strategy"]["matrix"]["target"]
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    built = {service["build"]["target"] for service in services.values() if "build" in service}
    assert set(matrix) == built


def test_release_waits_for_ci_and_runs_on_version_tags_only() -> None:
    workflow = load("release.yml")
    assert workflow[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads the key `on` as true
    assert workflow["jobs"]["image"]["needs"] == "ci"
    assert (ROOT / workflow["jobs"]["ci"]["uses"]).is_file()


def test_release_says_what_is_in_it_and_how_it_was_built() -> None:
    workflow = load("release.yml")
    [build] = [step["with"] for step in steps(workflow) if "build-push" in step.get("uses", "")]
    assert (build["provenance"], build["sbom"]) == ("mode=max", True)
    *_, write, keep = workflow["jobs"]["sbom"]["steps"]
    assert "cyclonedx-py requirements constraints.txt" in write["run"]
    assert write["run"].split()[-1] == keep["with"]["path"]


def test_every_pin_is_audited_with_each_change_and_each_week() -> None:
    workflow = load("audit.yml")
    assert workflow[True].keys() == {"push", "pull_request", "schedule"}
    *_, audit = steps(workflow)
    assert re.search(r"pip-audit==\S+ --no-deps", audit["run"])
    pins = re.findall(r"--requirement (\S+)", audit["run"])
    assert pins == ["constraints.txt", "deploy/k8s/pins.txt", "benchmarks/cluster/ray.txt"]
    assert workflow[True]["pull_request"]["paths"] == [*pins, ".github/workflows/audit.yml"]


def test_ci_builds_and_starts_the_images_by_the_command_that_everyone_has() -> None:
    commands = [step.get("run", "") for step in load("ci.yml")["jobs"]["images"]["steps"]]
    assert any(" make images" in command for command in commands)
    assert re.search(r"^images: .*\n\t.* -m deploy\.images ", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize(("tag", "status"), [("v{version}", 0), ("v999.0.0", 1), ("v0", 1)])
def test_release_rejects_a_tag_that_is_not_the_version(tag: str, status: int) -> None:
    [command] = [
        step["run"]
        for step in steps(load("release.yml"))
        if "GITHUB_REF_NAME" in step.get("run", "")
    ]
    found = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert found
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "GITHUB_REF_NAME": tag.format(version=found[1])},
        check=False,
    )
    assert done.returncode == status
