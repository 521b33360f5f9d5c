import re
import subprocess
import sys
from importlib.metadata import version
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
    allowed = {
        "image": {
            "contents": "read",
            "packages": "write",
            "attestations": "write",
            "id-token": "write",
        },
        "release": {"contents": "write"},
    }
    assert writing == (allowed if path.name == "release.yml" else {})


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


def installed(job: str) -> set[str]:
    """Debian's packages that a job of ci.yml installs."""
    commands = [step.get("run", "") for step in load("ci.yml")["jobs"][job]["steps"]]
    return set(" ".join(re.findall("install --yes (.+)", "\n".join(commands))).split())


def test_ci_skips_no_test_for_want_of_a_package_or_of_rights() -> None:
    tests = {path: path.read_text() for path in (ROOT / "tests").rglob("*.py")}
    named = re.findall(
        r"\(Debian: ([\w-]+)\)|not installed: apt install ([\w-]+)", "".join(tests.values())
    )
    packages = {name for pair in named for name in pair if name}
    assert {"nginx", "prometheus", "redis-server", "faketime"} <= packages
    assert packages <= installed("test")
    assert {"tini", "postgresql", "faketime"} <= installed("root")
    [command] = [
        step["run"] for step in load("ci.yml")["jobs"]["root"]["steps"] if "pytest" in str(step)
    ]
    places = [ROOT / place for place in re.findall(r"tests/[\w/]+(?:\.py)?", command)]
    needing = {path for path, text in tests.items() if '"only root may' in text}
    assert needing
    assert [path for path in needing if not any(path.is_relative_to(one) for one in places)] == []


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("SKIPPED [1] tests/faults/test_disk.py:32: only root may mount a file system", 1),
        ("SKIPPED [3] tests/deployment/test_alerts.py:167: promtool is not installed", 1),
        ("SKIPPED [9] tests/deployment/test_facts.py:105: minutes for each: make facts", 0),
    ],
)
def test_ci_fails_where_root_meets_a_skipped_test(line: str, status: int, tmp_path: Path) -> None:
    [command] = [
        step["run"] for step in load("ci.yml")["jobs"]["root"]["steps"] if "pytest" in str(step)
    ]
    (tmp_path / "sudo").write_text(f"#!/bin/sh\necho '{line}'\n")
    (tmp_path / "sudo").chmod(0o755)
    done = subprocess.run(
        ["bash", "-e", "-c", command],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        check=False,
    )
    assert done.returncode == status


def test_ci_starts_every_service_of_the_compose_file() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    profiles = {name for service in services.values() for name in service.get("profiles", [])}
    [command] = [step["run"] for step in steps(load("ci.yml")) if " up " in step.get("run", "")]
    assert set(re.findall(r"--profile (\S+)", command)) == profiles


def test_the_long_commands_run_each_week() -> None:
    workflow = load("weekly.yml")
    assert workflow[True].keys() == {"schedule", "workflow_dispatch"}
    commands = workflow["jobs"]["command"]["strategy"]["matrix"]["command"]
    assert {"stack", "faults TRIES=2", "soak", "quarter"} <= set(commands)
    targets = re.findall(r"^([\w-]+):.* ## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {command.split()[0] for command in commands} <= set(targets)


def test_commands_of_ci_name_services_and_modules_that_exist() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    commands = [step["run"] for step in steps(load("ci.yml")) if "run" in step]
    executed = [
        name for command in commands for name in re.findall(r"compose exec -T (\S+)", command)
    ]
    assert executed
    assert set(executed) <= services.keys()


def images() -> dict[str, dict[str, str]]:
    """Of a release: how each is built, by its name."""
    matrix = load("release.yml")["jobs"]["image"]["strategy"]["matrix"]["include"]
    return {one["name"]: one for one in matrix}


def test_release_builds_every_image_of_the_compose_file() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    built = {service["build"]["target"] for service in services.values() if "build" in service}
    assert {one["target"] for one in images().values()} == built
    # The extras of these are the Dockerfile's.
    assert {name for name, one in images().items() if "extras" not in one} == built


def test_release_builds_the_image_that_kubernetes_is_given_as_the_page_does() -> None:
    values = yaml.safe_load((ROOT / "deploy" / "k8s" / "dagster.yaml").read_text())
    [deployment] = values["dagster-user-deployments"]["deployments"]
    repository = deployment["image"]["repository"]
    image = images()[repository.removeprefix("cxr-")]
    page = (ROOT / "docs" / "deploy.md").read_text()
    command = f"--target {image['target']} --build-arg EXTRAS={image['extras']} --tag {repository}:"
    assert command in page


def test_release_waits_for_ci_and_runs_on_version_tags_only() -> None:
    workflow = load("release.yml")
    assert workflow[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads the key `on` as true
    assert workflow["jobs"]["image"]["needs"] == "ci"
    assert (ROOT / workflow["jobs"]["ci"]["uses"]).is_file()


def test_release_says_what_is_in_each_image_and_how_it_was_built() -> None:
    workflow = load("release.yml")
    steps_of = {name: workflow["jobs"][name]["steps"] for name in ("image", "release")}
    using = {
        step["uses"].partition("@")[0]: step.get("with", {})
        for step in steps_of["image"]
        if "uses" in step
    }
    build = using["docker/build-push-action"]
    assert (build["provenance"], build["sbom"]) == ("mode=max", True)
    [write] = [step["run"] for step in steps_of["image"] if "cyclonedx-py" in step.get("run", "")]
    file = "${{ matrix.name }}.cdx.json"
    assert write.endswith(f"--output-file {file}")
    # Both attestations are of what was pushed, by its digest.
    for name in ("actions/attest-build-provenance", "actions/attest-sbom"):
        assert using[name]["subject-name"] == "${{ steps.name.outputs.image }}"
        assert using[name]["subject-digest"] == "${{ steps.build.outputs.digest }}"
    assert using["actions/attest-sbom"]["sbom-path"] == file
    assert using["actions/upload-artifact"]["path"] == file
    *_, publish = steps_of["release"]
    assert "gh release upload" in publish["run"]
    assert publish["run"].strip().endswith("*.cdx.json")


def test_the_packages_of_an_image_are_those_it_has_but_this_one(tmp_path: Path) -> None:
    [command] = [
        step["run"]
        for step in load("release.yml")["jobs"]["image"]["steps"]
        if "docker run" in step.get("run", "")
    ]
    # In place of the image, this environment.
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\nshift 4\nexec {sys.executable} "$@"\n')
    docker.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "IMAGE": "image"}
    subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", command], cwd=tmp_path, env=environment, check=True
    )
    found = (tmp_path / "packages.txt").read_text().splitlines()
    assert f"torch=={version('torch')}" in found
    assert not any(line.startswith("cxr") for line in found)


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
        for step in load("release.yml")["jobs"]["image"]["steps"]
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
