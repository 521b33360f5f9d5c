import signal

import killing
import pytest
import tiny
import torch

from cxr_assets.layout import Layout
from cxr_assets.learning.fit import fit
from cxr_assets.learning.interruption import Interruption


@pytest.mark.parametrize(
    ("batch", "steps"), [(1, 1), (2, 1), (3, 2), (5, 3), (6, 4)],
    ids=["within a step", "end of a step", "within the next", "last batch", "next epoch"],
)  # fmt: skip
def test_stopped_between_the_batches_of_a_step_a_training_ends_the_same(
    batch, steps, tmp_path, monkeypatch
):
    """An epoch has three steps, of two batches, two and one."""
    plans = []
    for name in ("straight", "stopped"):
        layout = Layout(tmp_path / name)
        tiny.processed(layout, images=6)
        plans.append(killing.plan(layout, "trainer.max_epochs=2", "trainer.accumulate=2"))
    straight, stopped = plans
    fit(straight, lambda line: None)
    seen = 0
    hook = Interruption.on_train_batch_end

    def signalled(self: Interruption, *arguments: object) -> None:
        nonlocal seen
        seen += 1
        if seen == batch:
            signal.raise_signal(signal.SIGTERM)
        hook(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Interruption, "on_train_batch_end", signalled)
        with pytest.raises(SystemExit):
            fit(stopped, lambda line: None)
    assert torch.load(stopped.work / "last.ckpt", weights_only=True)["global_step"] == steps
    lines: list[str] = []
    fit(stopped, lines.append)
    assert lines[0].startswith("resuming from")
    left, expected = (killing.left_behind(plan.work) for plan in (stopped, straight))
    assert killing.difference(left, expected) is None
