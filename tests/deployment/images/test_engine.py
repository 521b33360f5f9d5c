"""Engines, by programs that stand for them: they keep a note of their calls."""

import os
from pathlib import Path

import pytest

from deploy.images import __main__ as command
from deploy.images.engine import Engine, EngineError, find

STAND_IN = """#!/bin/sh
echo "$@" >> {folder}/{name}.calls
case $1 in
  from|create) echo container-7 ;;
  mount) echo {folder}/image ;;
  export) tar --create --directory={folder}/image . ;;
esac
exit {status}
"""


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose `bin` is the PATH, with an image of one file."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "image" / "etc").mkdir(parents=True)
    (tmp_path / "image" / "etc" / "hostname").write_text("cxr")
    tar = next(Path(folder, "tar") for folder in os.get_exec_path() if Path(folder, "tar").exists())
    (tmp_path / "bin" / "tar").symlink_to(tar)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def install(folder: Path, name: str, status: int = 0) -> None:
    program = folder / "bin" / name
    program.write_text(STAND_IN.format(folder=folder, name=name, status=status))
    program.chmod(0o755)


def calls(folder: Path, name: str) -> list[str]:
    return (folder / f"{name}.calls").read_text().splitlines()


def test_an_engine_that_does_not_answer_is_passed_over(engines: Path) -> None:
    with pytest.raises(EngineError, match="apt install buildah"):
        find()
    install(engines, "docker", status=1)
    install(engines, "buildah")
    assert find() == Engine("buildah")
    install(engines, "podman")
    assert find() == Engine("podman")


@pytest.mark.parametrize("name", ["docker", "podman", "buildah"])
def test_a_stage_is_built_with_the_options_that_were_given(name: str, engines: Path) -> None:
    install(engines, name)
    Engine(name).build("cxr-serving", "serving", engines, ["--build-arg", "BASE=debian"])
    [build] = calls(engines, name)
    assert build.startswith("build ")
    assert build.endswith(f"--build-arg BASE=debian --target=serving --tag=cxr-serving {engines}")
    assert ("--isolation=chroot" in build) is (name == "buildah")


@pytest.mark.parametrize("name", ["docker", "podman", "buildah"])
def test_the_files_of_an_image_are_unpacked_and_its_container_is_removed(
    name: str, engines: Path
) -> None:
    install(engines, name)
    folder = engines / "roots" / "serving"
    Engine(name).unpack("cxr-serving", folder)
    assert (folder / "etc" / "hostname").read_text() == "cxr"
    assert calls(engines, name)[-1] == "rm container-7"


def test_a_build_that_fails_is_an_error(engines: Path) -> None:
    install(engines, "docker", status=2)
    with pytest.raises(EngineError, match="docker does not build cxr-serving"):
        Engine("docker").build("cxr-serving", "serving", engines, [])
    with pytest.raises(EngineError, match="docker create cxr-serving fails"):
        Engine("docker").unpack("cxr-serving", engines / "root")


def test_files_that_cannot_be_read_are_an_error(engines: Path) -> None:
    install(engines, "docker")
    (engines / "image").rename(engines / "away")
    with pytest.raises(EngineError, match="files of cxr-serving cannot be written"):
        Engine("docker").unpack("cxr-serving", engines / "root")
    assert calls(engines, "docker")[-1] == "rm container-7"


def test_the_images_are_those_of_the_compose_file() -> None:
    assert command._images() == {"pipeline": "cxr-pipeline", "serving": "cxr-serving"}


def test_a_serving_image_that_is_too_large_is_a_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(501 * 10**6)
    assert command._faults("serving", tmp_path) == [
        "serving: 501 MB, more than the 500 MB that it may have"
    ]
    assert command._faults("pipeline", tmp_path) == []
    assert f"501 MB in {tmp_path}" in capsys.readouterr().out
