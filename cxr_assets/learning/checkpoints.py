"""Checkpoints of a training: written atomically, verified before a training resumes."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO

from cxr_assets.learning.lock import writing
from cxr_assets.progress import Progress
from cxr_serving.model.atomic import set_aside, write_file
from cxr_serving.model.bundle import CHECKPOINT_FILE

LAST_FILE = "last.ckpt"

# Of every checkpoint that Lightning resumes from.
_KEYS = {"state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks"}


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint to a temporary file in the same folder, then renames it.

    Lightning uses the system's temporary folder. If that is another file system, the move is a
    copy, which a kill can leave incomplete.
    """

    def __init__(self, saved: Callable[[], None] = lambda: None) -> None:
        """Prepare to write.

        Args:
            saved: called after each ``last.ckpt``.
        """
        self._saved = saved

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            TrainingError: the disk is full or read-only.
        """
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with writing(Path(path)):
            write_file(Path(path), content.getbuffer())
        if Path(path).name == LAST_FILE:
            self._saved()


def resumable(work: Path, progress: Progress) -> Path | None:
    """The checkpoint in a work folder that a training can resume from; None to start again.

    This is the last checkpoint, or the best one (an earlier checkpoint of the same training) if the
    last is missing or broken. If the best one is, a resumed training might never write it again, so
    training starts again. Broken checkpoints are set aside.

    Args:
        work: the work folder.
        progress: called with a line for each checkpoint that cannot be used.
    """
    last, best = (_load(work / name, progress) for name in (LAST_FILE, CHECKPOINT_FILE))
    if last is None:
        return None if best is None else work / CHECKPOINT_FILE
    if best is None and _has_best(last):
        aside = set_aside(work / LAST_FILE)
        progress(f"set aside as {aside}, because {CHECKPOINT_FILE} is lost: training starts again")
        return None
    return work / LAST_FILE


def _has_best(checkpoint: dict[str, Any]) -> bool:
    """Whether an epoch had ended before it was written, so that there was a best checkpoint."""
    states = checkpoint["callbacks"].values()
    return any(Path(state.get("best_model_path", "")).name == CHECKPOINT_FILE for state in states)


def _load(path: Path, progress: Progress) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        # PyTorch writes checksums but does not compare them.
        with zipfile.ZipFile(path) as archive:
            altered = archive.testzip()
        if altered is not None:
            raise ValueError(f"{altered} does not match its checksum")
        checkpoint: dict[str, Any] = torch.load(
            path, map_location="cpu", weights_only=True, mmap=True
        )
        if missing := _KEYS - checkpoint.keys():
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    except Exception as error:  # noqa: BLE001 - unpickling a broken file may raise anything
        reason = " ".join(str(error).split())
        progress(f"set aside as {set_aside(path)}, because it is broken: {reason}")
        return None
    return checkpoint


class Kept(ModelCheckpoint):
    """Knows the best epoch, when resuming, also if the work folder lies elsewhere than before."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """With the paths of this work folder: Lightning would forget the best score."""
        folder = Path(str(self.dirpath))

        def here(path: str) -> str:
            return path and str(folder / Path(path).name)

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        super().load_state_dict(
            {
                **state_dict,
                "dirpath": self.dirpath,
                "best_k_models": {here(p): s for p, s in state_dict["best_k_models"].items()},
                **{name: here(state_dict[name]) for name in paths},
            }
        )
