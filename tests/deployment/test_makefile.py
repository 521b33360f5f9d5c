import os
import re
import shutil
import subprocess
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    key: value
    for key, value in os.environ.items()
    if not key.startswith(("CXR_", "DAGSTER_", "MAKE", "MFLAGS", "PIP_", "UV_"))
}
MAKE = shutil.which("make") or "make"
EXTRAS = ".[pipeline,serving,dicom,dev]"


def make(
    *arguments: str, directory: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [MAKE, *arguments],
        cwd=directory,
        env=ENVIRONMENT | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def clone(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A directory with the Makefile and what ``setup`` reads, already installed."""
    directory = tmp_path / getattr(request, "param", "a clone")
    (directory / ".venv").mkdir(parents=True)
    for name in ("Makefile", "dagster.yaml", "pyproject.toml", "constraints.txt"):
        (directory / name).write_bytes((ROOT / name).read_bytes())
    (directory / ".venv" / "installed").touch()
    return directory


def test_help_is_the_default_and_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    declared = re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE)
    assert declared
    listed = re.findall(r"^make ([\w-]+) +\S", make().stdout, re.MULTILINE)
    assert listed == declared[1].split()


def test_setup_links_the_configuration_into_the_default_home(clone: Path) -> None:
    done = make("setup", directory=clone)
    assert done.returncode == 0, done.stderr
    linked = clone / "data" / "dagster" / "dagster.yaml"
    assert linked.resolve() == (clone / "dagster.yaml").resolve()


def test_setup_follows_the_data_root(clone: Path, tmp_path: Path) -> None:
    done = make("setup", directory=clone, CXR_DATA_ROOT=str(tmp_path / "my data"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "my data" / "dagster" / "dagster.yaml").exists()
    assert not (clone / "data").exists()


ODD = ["Häuser (2024)", "#1 50% & more;", 'it\'s "here"', "$HOME `x` \\y"]
odd_clones = pytest.mark.parametrize("clone", ODD, indirect=True)


@odd_clones
def test_a_clone_may_lie_anywhere(clone: Path) -> None:
    done = make("setup", directory=clone)
    assert done.returncode == 0, done.stderr
    assert (clone / "data" / "dagster" / "dagster.yaml").readlink() == clone / "dagster.yaml"


@pytest.mark.parametrize("name", [*ODD, "relative /with a slash"])
def test_a_data_root_may_be_anything(clone: Path, tmp_path: Path, name: str) -> None:
    root = name if "/" in name else str(tmp_path / name)
    done = make("setup", directory=clone, CXR_DATA_ROOT=root)
    assert done.returncode == 0, done.stderr
    assert (clone / root / "dagster" / "dagster.yaml").exists()


def test_images_of_a_benchmark_may_lie_anywhere(clone: Path) -> None:
    program = clone / ".venv" / "bin" / "python"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nfor word; do printf "%s\\n" "$word" >> words; done\n')
    program.chmod(0o755)
    for name in ODD[:3]:
        done = make("bench", f"IMAGES={name}", directory=clone)
        assert done.returncode == 0, done.stderr
        assert (clone / "words").read_text().splitlines()[-1] == name
        assert f"data.folder={name}" in (clone / "words").read_text()
    (clone / "words").unlink()
    make("bench", directory=clone)
    assert "data.folder" not in (clone / "words").read_text()
    assert (clone / "words").read_text().splitlines()[-1] == "benchmarks.memory"


@pytest.mark.parametrize("name", ["why?", "50%20percent"])
def test_where_dagster_cannot_keep_its_records_setup_says_so(
    clone: Path, tmp_path: Path, name: str
) -> None:
    done = make("setup", directory=clone, CXR_DATA_ROOT=str(tmp_path / name))
    assert done.returncode != 0
    assert f'in {tmp_path / name}/dagster: its path holds "?" or "%"' in done.stderr
    assert 'export DAGSTER_HOME="$HOME/dagster"' in done.stderr
    home = str(tmp_path / "home")
    done = make("setup", directory=clone, CXR_DATA_ROOT=str(tmp_path / name), DAGSTER_HOME=home)
    assert done.returncode == 0, done.stderr


def test_setup_keeps_a_configuration_of_the_user(clone: Path, tmp_path: Path) -> None:
    own = tmp_path / "home" / "dagster.yaml"
    own.parent.mkdir()
    own.write_text("telemetry:\n  enabled: true\n")
    done = make("setup", directory=clone, DAGSTER_HOME=str(own.parent))
    assert done.returncode == 0, done.stderr
    assert own.read_text() == "telemetry:\n  enabled: true\n"
    assert not own.is_symlink()


def test_setup_repairs_the_link_after_the_clone_has_moved(clone: Path) -> None:
    assert make("setup", directory=clone).returncode == 0
    moved = clone.rename(clone.with_name("moved"))
    assert make("setup", directory=moved).returncode == 0
    assert (moved / "data" / "dagster" / "dagster.yaml").exists()


def test_setup_installs_again_when_the_pins_change(clone: Path) -> None:
    assert "pip install" not in make("-n", "setup", directory=clone).stdout
    os.utime(clone / "constraints.txt", (2**31, 2**31))
    assert "pip install" in make("-n", "setup", directory=clone).stdout


@pytest.fixture
def installing(clone: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """``make setup`` before the first installation: what it runs to install, with its sources.

    ``uv`` says whether that is on the PATH; a ``status`` other than 0 makes the installation fail.
    """
    (clone / ".venv" / "installed").unlink()
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sh", "mkdir", "ln", "touch", "env", "tr", "cat", "chmod"):
        (programs / name).symlink_to(shutil.which(name) or name)

    def program(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!{programs / 'sh'}\n{text}\n")
        path.chmod(0o755)

    def install(uv: bool, status: int = 0, **environment: str) -> list[str]:
        note = f'echo "$0 $*" >> {clone}/calls; env | grep ^UV_ >> {clone}/calls; exit {status}'
        program(programs / "python3", "")
        program(programs / "grep", f'exec {shutil.which("grep")} "$@"')
        program(clone / ".venv" / "bin" / "pip", note.replace(str(clone), "."))
        if uv:
            program(programs / "uv", note.replace(str(clone), "."))
        done = make("setup", directory=clone, PATH=str(programs), **environment)
        assert (done.returncode == 0) == (status == 0), done.stderr
        assert (clone / ".venv" / "installed").exists() == (status == 0)
        assert len(done.stdout.splitlines()) == 1
        assert f"with {'uv' if uv else 'pip'}" in done.stdout
        return (clone / "calls").read_text().splitlines()

    return install


def test_pip_installs_every_pin_without_resolving(installing: Callable[..., list[str]]) -> None:
    pins, project = installing(uv=False)
    assert pins.startswith(".venv/bin/pip install ")
    assert pins.endswith(" --no-deps -r constraints.txt")
    assert project.endswith(f" -c constraints.txt -e {EXTRAS}")


def test_uv_installs_where_it_is_on_the_path_from_the_sources_of_pip(
    installing: Callable[..., list[str]],
) -> None:
    command, *sources = installing(
        uv=True,
        PIP_INDEX_URL="https://mirror/simple",
        PIP_EXTRA_INDEX_URL="https://download.pytorch.org/whl/cpu",
        PIP_FIND_LINKS="/wheels /more",
    )
    assert f"--index-strategy unsafe-best-match -r constraints.txt -e {EXTRAS}" in command
    assert sorted(sources) == [
        "UV_DEFAULT_INDEX=https://mirror/simple",
        "UV_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu",
        "UV_FIND_LINKS=/wheels,/more",
    ]


@pytest.mark.parametrize("uv", [False, True])
def test_an_installation_that_fails_is_not_taken_for_done(
    uv: bool, installing: Callable[..., list[str]]
) -> None:
    installing(uv=uv, status=1)


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_every_package_that_is_installed_is_pinned(python: str) -> None:
    """pip installs the pins without resolving: what is missing there would be resolved."""
    pins = {
        canonicalize_name(name): version
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        for name, version in [line.split("==")]
    }
    environment = {**default_environment(), "python_version": python}
    environment["python_full_version"] = f"{python}.1"
    waiting = [Requirement("cxr-retraining[pipeline,serving,dicom,dev]")]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        extras = {"", *requirement.extras} - {
            extra for seen_name, extra in seen if seen_name == name
        }
        if name != "cxr-retraining":
            assert name in pins, f"{requirement} is not in constraints.txt"
            assert requirement.specifier.contains(pins[name], prereleases=True)
        try:
            needed = list(map(Requirement, distribution(name).requires or []))
        except PackageNotFoundError:  # on another Python alone
            continue
        for extra in extras:
            seen.add((name, extra))
            waiting += [
                each
                for each in needed
                if (each.marker is None and not extra)
                or (each.marker and each.marker.evaluate({**environment, "extra": extra}))
            ]


@pytest.mark.parametrize("python", ["a-python-that-is-not-there", "./python3.10"])
def test_setup_rejects_another_python(python: str, clone: Path) -> None:
    (clone / ".venv" / "installed").unlink()
    old = clone / "python3.10"
    old.write_text('#!/bin/sh\n[ "$1" != -c ] && mkdir -p .venv/bin\n')
    old.chmod(0o755)
    done = make("setup", f"PYTHON={python}", directory=clone)
    assert done.returncode != 0
    assert f"{python} is not Python 3.11, 3.12 or 3.13" in done.stderr
    assert not (clone / ".venv" / "bin").exists()


def test_ci_runs_the_tests() -> None:
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "make test"
    commands = make("-n", "test").stdout
    for program in (
        "ruff check",
        "ruff format --check",
        "mypy",
        "lint-imports",
        "sphinx-build",
        "pytest",
    ):
        assert f".venv/bin/{program}" in commands
