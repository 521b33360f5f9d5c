import re
import subprocess
import sys
from pathlib import Path

import pytest
from command import CXR, without

import cxr
from cxr_assets.settings import Settings as PipelineSettings
from cxr_serving.http.settings import Settings as ServiceSettings
from cxr_serving.model import DISCLAIMER

COMMANDS = ["predict", "evaluate", "train", "summary", "serve", "release", "data"]


def output(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    """What a command prints, on either stream, that ends with ``status``."""
    with pytest.raises(SystemExit) as stop:
        cxr.main(arguments)
    assert stop.value.code == status
    return "".join(capsys.readouterr())


def test_help_names_the_commands_and_what_they_are_not_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = output(capsys, "--help")
    assert re.findall(r"^  ([a-z]+)   *\S", text, re.MULTILINE) == COMMANDS
    assert "--completion" not in text
    assert DISCLAIMER in " ".join(text.split())


@pytest.mark.parametrize("command", [*COMMANDS, "data check", "data forget"])
def test_help_of_a_command_names_settings_that_exist_with_their_defaults(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = {**PipelineSettings.model_fields, **ServiceSettings.model_fields}
    text = output(capsys, *command.split(), "--help")
    assert text.isascii(), "it is printed in every locale"
    for name in re.findall(r"CXR_(\w+)", text):
        field = fields[name.lower()]
        shown = re.search(rf"CXR_{name} .*\(default: (\S+)\)", text)
        if shown:
            assert shown[1] == str(field.default)


def test_help_imports_nothing_that_takes_time() -> None:
    program = "import cxr, sys; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    slow = {"cxr_assets", "cxr_serving", "numpy", "pydantic", "rich", "torch", "fastapi"}
    assert not slow & set(loaded)


@pytest.mark.parametrize(
    ("command", "absent", "extra"),
    [
        (("serve",), "fastapi", "serving"),
        (("summary",), "cxr_assets", "pipeline"),
        (("train", "seed=1"), "hydra", "pipeline"),
        (("evaluate", "--bundle=a", "--data=b", "--out=c"), "pandas", "pipeline"),
    ],
)
def test_without_its_extra_a_command_says_how_to_install_it(
    command: tuple[str, ...], absent: str, extra: str, tmp_path: Path
) -> None:
    ended = subprocess.run(
        [CXR, *command],
        env=without(tmp_path, absent),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert f'needs the extra "{extra}": {absent} is not installed' in line
    assert line.endswith(f'pip install -c constraints.txt ".[{extra}]"')


def test_a_broken_module_of_ours_is_not_taken_for_a_missing_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cxr_assets.summary", None)
    with pytest.raises(ModuleNotFoundError):
        cxr.main(["summary"])


def test_wrong_usage_is_reported_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Missing option '--bundle'" in output(capsys, "evaluate", status=2)
    assert "No such command 'predicts'" in output(capsys, "predicts", status=2)


def test_summary_names_a_bad_variable_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CXR_DATA_ROOT", str(tmp_path))
    monkeypatch.setenv("CXR_HF_REPO", "https://huggingface.co/group/cxr")
    with pytest.raises(SystemExit) as stop:
        cxr.main(["summary"])
    assert str(stop.value.code).startswith("error: CXR_HF_REPO must be owner/name")
