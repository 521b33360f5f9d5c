"""Images on workers of the cluster: a stream of Ray Data, which holds back what is not awaited."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import ray
import ray.data
from transformers import PreTrainedModel

from cxr_assets.cluster.call import Job, watched
from cxr_assets.cluster.ranks import awaited
from cxr_assets.experiment import Compute
from cxr_assets.learning.backbone import Embedder, Embedding, embedder
from cxr_assets.progress import Progress
from cxr_assets.radiographs.decoding import Decoder, Written
from cxr_serving.model.preprocessing import Preprocessing

# Images of one task: a second's work or so.
_TASK = 32


def write(
    compute: Compute, job: Job, images: pd.DataFrame, size: int, progress: Progress
) -> list[Written]:
    """Write PNGs, as :func:`cxr_assets.radiographs.conversion.write_here` does.

    Args:
        compute: how many workers, and what each reserves.
        job: that the workers end with.
        images, size, progress: as there.

    Raises:
        WorkerError: a worker is gone.
    """
    done: list[Written] = []
    for part in _streamed(images.astype(str), _Writer, (size,), compute, job):
        rows = zip(*(part[name] for name in Written._fields), strict=True)
        for row in rows:
            done.append(Written(*(None if pd.isna(value) else value for value in row)))
            if len(done) % 1000 == 0:
                progress(f"prepared {len(done):,} of {len(images):,} images")
    return done


class _Writer:
    """A worker that writes PNGs."""

    def __init__(self, size: int) -> None:
        self._decoder = Decoder(size)

    def __call__(self, images: pd.DataFrame) -> pd.DataFrame:
        columns = (images[name] for name in ("source", "sha256", "target"))
        rows = [
            self._decoder.write(Path(source), sha256, Path(target))
            for source, sha256, target in zip(*columns, strict=True)
        ]
        # Of one type in every task, also where no image has a reason.
        return pd.DataFrame(rows, columns=Written._fields).astype(
            {"pixels": "string", "colour": "Float64", "reason": "string"}
        )


def embedder_on(
    compute: Compute, job: Job, backbone: PreTrainedModel, preprocessing: Preprocessing
) -> Embedder:
    """What embeds on the cluster, as :func:`cxr_assets.learning.backbone.embedder` does here.

    Args:
        compute: how many workers, and what each reserves.
        job: that the workers end with.
        backbone, preprocessing: as there.
    """

    def embed(directory: Path, files: Sequence[str]) -> Iterator[Embedding]:
        arguments = (directory, backbone, preprocessing)
        images = pd.DataFrame({"file": files})
        for part in _streamed(images, _Embedder, arguments, compute, job):
            yield from np.stack(part["embedding"])

    return embed


class _Embedder:
    """A worker that embeds images."""

    def __init__(
        self, directory: Path, backbone: PreTrainedModel, preprocessing: Preprocessing
    ) -> None:
        self._directory = directory
        self._embed = embedder(backbone, preprocessing)

    def __call__(self, images: pd.DataFrame) -> dict[str, Any]:
        return {"embedding": np.stack(list(self._embed(self._directory, images["file"].tolist())))}


def _streamed(
    images: pd.DataFrame, worker: type, arguments: tuple[Any, ...], compute: Compute, job: Job
) -> Iterator[pd.DataFrame]:
    """What workers make of images, task by task, in the order of ``images``.

    Args:
        images: one row per image, of text.
        worker: class whose objects make a table of one with as many rows.
        arguments: of the class.
        compute: how many workers, and what each reserves.
        job: that the workers end with.

    Raises:
        Exception: what a worker raised.
        WorkerError: a worker is gone, and Ray could not replace it.
    """
    if images.empty:
        return
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False  # a line per second in the log of the run
    tasks = [images[start : start + _TASK] for start in range(0, len(images), _TASK)]
    made = ray.data.from_pandas(tasks).map_batches(
        worker,
        batch_size=None,
        batch_format="pandas",
        fn_constructor_args=arguments,
        compute=ray.data.ActorPoolStrategy(size=compute.workers),
        num_cpus=compute.cpus,
        num_gpus=compute.gpus,
        runtime_env=watched(job.alive),
    )
    with awaited("a worker that reads images", "Run the same again"):
        yield from made.iter_batches(batch_size=None, batch_format="pandas")
