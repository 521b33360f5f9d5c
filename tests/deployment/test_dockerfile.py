import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = ["pipeline", "serving"]

Stages = dict[str, list[tuple[str, str]]]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def arguments_of(stage: list[tuple[str, str]], instruction: str) -> list[str]:
    return [arguments for kind, arguments in stage if kind == instruction]


def copied_from_context(stages: Stages) -> set[str]:
    return {
        source
        for stage in stages.values()
        for copy in arguments_of(stage, "COPY")
        if "--from=" not in copy
        for source in [word for word in copy.split() if not word.startswith("--")][:-1]
    }


def test_copied_files_exist(stages: Stages) -> None:
    sources = copied_from_context(stages)
    assert sources >= {"pyproject.toml", "constraints.txt", "cxr", "cxr_assets", "cxr_serving"}
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_build_context_is_what_is_copied_and_no_more(stages: Stages) -> None:
    first, *rest = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] != "#"
    ]
    assert first == "*"
    allowed = {line[1:].rstrip("/") for line in rest if line.startswith("!")}
    assert allowed == {source.split("/")[0] for source in copied_from_context(stages)}


def test_metadata_files_are_in_the_build(stages: Stages, project: dict[str, Any]) -> None:
    needed = {project["project"]["readme"], *project["project"]["license-files"]}
    assert needed <= copied_from_context(stages)


def test_stages_copied_from_exist(stages: Stages) -> None:
    copies = [copy for image in IMAGES for copy in arguments_of(stages[image], "COPY")]
    origins = re.findall(r"--from=(\S+)", " ".join(copies))
    assert sorted(origins) == [f"build-{image}" for image in IMAGES]
    assert set(origins) <= stages.keys()


@pytest.mark.parametrize("image", IMAGES)
def test_image_does_not_run_as_root(image: str, stages: Stages) -> None:
    [user] = arguments_of(stages[image], "USER")
    assert any(f"useradd --uid 1000 --create-home --no-log-init {user} " in run
               for run in arguments_of(stages[image], "RUN"))  # fmt: skip
    assert any(f"install --directory --owner {user} --group {user} /data" in run
               for run in arguments_of(stages[image], "RUN"))  # fmt: skip


@pytest.mark.parametrize("image", IMAGES)
def test_image_installs_its_own_extra_at_pinned_versions(
    image: str, stages: Stages, project: dict[str, Any]
) -> None:
    installs = [
        run for run in arguments_of(stages[f"build-{image}"], "RUN") if "pip install" in run
    ]
    arguments, extras = {
        "pipeline": ('-c constraints.txt -c pins.txt ".[$EXTRAS]"', "pipeline,s3,k8s"),
        "serving": (
            '-c constraints.txt ".[serving,dicom,s3,redis]"',
            "serving,dicom,s3,redis",
        ),
    }[image]
    assert f"pip install {arguments}" in installs[0]
    assert set(extras.split(",")) <= project["project"]["optional-dependencies"].keys()
    assert [run.endswith(" pip install --no-deps --force-reinstall .") for run in installs[1:]] == [
        True
    ]
    # Each asks a package index, which may be one's own.
    assert all("--mount=type=secret,id=pip,target=/etc/pip.conf " in run for run in installs)


def test_pip_stays_behind_in_the_build(stages: Stages) -> None:
    environment = " ".join(arguments_of(stages["build"], "ENV"))
    assert "PATH=/opt/pip/bin:$PATH" in environment
    assert "PIP_PYTHON=/opt/venv/bin/python" in environment
    assert arguments_of(stages["build"], "RUN")[-1].endswith("venv --without-pip /opt/venv")
    copied = [copy for image in IMAGES for copy in arguments_of(stages[image], "COPY")]
    assert not any("/opt/pip" in copy for copy in copied)


def test_serving_image_looks_for_no_build_of_torch(stages: Stages) -> None:
    index = "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu"
    # Neither compose nor one machine needs Kubernetes' client.
    assert arguments_of(stages["build-pipeline"], "ARG") == ["EXTRAS=pipeline,s3", index]
    for stage in ("base", "build", "build-serving", "serving"):
        assert arguments_of(stages[stage], "ARG") == []


def test_serving_image_holds_nothing_of_the_pipeline(stages: Stages) -> None:
    copied = " ".join(arguments_of(stages["build-serving"], "COPY"))
    assert "cxr_serving" in copied
    assert "cxr_assets" not in copied


def test_python_is_one_that_the_package_admits(stages: Stages, project: dict[str, Any]) -> None:
    [base] = arguments_of(stages["base"], "FROM")
    assert base == "${BASE} AS base"
    found = re.search(
        r"^ARG BASE=python:(3\.\d+)\.\d+-slim-\w+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE
    )
    assert found
    assert f"Programming Language :: Python :: {found[1]}" in project["project"]["classifiers"]


@pytest.mark.parametrize(
    ("image", "service"), [("pipeline", "code-location"), ("serving", "serving")]
)
def test_default_command_is_the_composed_one(
    image: str, service: str, stages: Stages, services: dict[str, dict[str, Any]]
) -> None:
    [command] = arguments_of(stages[image], "CMD")
    composed = [
        word
        for part in services[service]["command"]
        for word in shlex.split(part.replace("=", " "))
    ]
    assert json.loads(command) == composed


def test_no_program_changes_the_user(stages: Stages) -> None:
    last = arguments_of(stages["base"], "RUN")[-1]
    assert last.endswith("find / -xdev -type f -perm /6000 -exec chmod a-s {} +")


def test_no_secret_is_built_in(stages: Stages) -> None:
    names = " ".join(
        arguments
        for stage in stages.values()
        for kind in ("ARG", "ENV")
        for arguments in arguments_of(stage, kind)
    )
    assert not re.search("TOKEN|PASSWORD|SECRET|KAGGLE", names)
