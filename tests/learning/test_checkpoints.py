from pathlib import Path
from typing import Any

import pytest
import torch

from cxr_assets.learning.checkpoints import LAST_FILE, WholeCheckpoints, resumable
from cxr_assets.learning.lock import TrainingError
from cxr_serving.model.bundle import CHECKPOINT_FILE


def checkpoint(best: str = "") -> dict[str, Any]:
    parts = ("state_dict", "optimizer_states", "lr_schedulers", "loops")
    return {**{name: {} for name in parts}, "callbacks": {"best": {"best_model_path": best}}}


def write(path: Path, **content: str) -> None:
    WholeCheckpoints().save_checkpoint(checkpoint(**content), path)


def resumed(work: Path) -> tuple[str | None, str]:
    """The name of the checkpoint that a training resumes from, and what is reported."""
    lines: list[str] = []
    found = resumable(work, lines.append)
    return found and found.name, " ".join(lines)


def test_the_last_checkpoint_is_resumed_from_or_else_the_best(tmp_path: Path) -> None:
    assert resumed(tmp_path) == (None, "")
    write(tmp_path / CHECKPOINT_FILE)
    assert resumed(tmp_path) == (CHECKPOINT_FILE, "")
    write(tmp_path / LAST_FILE, best=f"/elsewhere/{CHECKPOINT_FILE}")
    assert resumed(tmp_path) == (LAST_FILE, "")
    (tmp_path / LAST_FILE).write_bytes(b"cut off")
    name, said = resumed(tmp_path)
    assert name == CHECKPOINT_FILE
    assert f"set aside as {tmp_path / LAST_FILE}.broken, because it is broken" in said


def test_without_its_best_checkpoint_a_training_starts_again(tmp_path: Path) -> None:
    write(tmp_path / LAST_FILE, best=f"/elsewhere/{CHECKPOINT_FILE}")
    name, said = resumed(tmp_path)
    assert name is None
    assert f"{CHECKPOINT_FILE} is lost" in said


def test_a_checkpoint_of_something_else_is_set_aside(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / LAST_FILE)
    assert "it lacks callbacks, loops" in resumed(tmp_path)[1]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match=r"file.* cannot be written: .*resumes"):
        write(tmp_path / "file" / LAST_FILE)
