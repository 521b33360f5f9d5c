"""What the rule for release lets through: ``python -m benchmarks.promotion DATA_ROOT``.

The newest main model below the data root is the champion. From its answers to the test split come
challengers with known faults: equal ones, with as many errors, but others, as of another seed; and
ones that are worse by three points of recall in one class. For several limits the table says how
many of each the rule releases.
"""

import itertools
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_assets.evaluation import images as evaluated
from cxr_assets.evaluation import regression
from cxr_assets.evaluation.rule import against
from cxr_assets.evaluation.scoring import Evaluated, evaluate_models
from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_serving.model import store
from cxr_serving.model.comparison import Regression
from cxr_serving.model.predictor import Predictor

CHALLENGERS = 20
LOSS = 0.03
# Share of the errors that another seed does not make; it makes as many others. An assumption.
CHURN = 0.5
NON_INFERIORITY = (0.02, 0.03, 0.05)
CLASS_LOSS = (0.01, 0.02, 0.03, 0.05)

Scores = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


def main() -> None:
    """Plant the challengers, judge them, and print the table."""
    layout = Layout(Path(sys.argv[1]).absolute())
    bundles = layout.models("convnext_model")
    images = evaluated.test_split(layout.processed)
    champion = evaluate_models([Predictor(bundles / store.versions(bundles)[-1])], images).models[0]
    targets = images.targets(champion.record.classes)
    everything = np.ones(len(targets), dtype=bool)
    found: dict[str, list[Regression]] = {
        kind: [
            regression.compare(images, challenger, champion, everything)
            for challenger in challengers(champion, targets, loss)
        ]
        for kind, loss in (("equal", 0.0), ("worse", LOSS))
    }
    metrics = champion.metrics
    counts = ", ".join(map(str, np.bincount(targets)))
    print(
        f"{metrics.images} images ({counts} by class) of {images.table['patient'].nunique()} "
        f"patients; macro F1 {metrics.macro_f1:.3f}, accuracy {metrics.accuracy:.3f}, calibration "
        f"error {metrics.calibration.after.ece:.3f}; churn {CHURN:g}\n"
    )
    print(table(found).to_markdown(index=False))


def challengers(champion: Evaluated, targets: Indices, loss: float) -> Iterator[Evaluated]:
    """Models with other errors than the champion, and a share ``loss`` more in one class."""
    for seed in range(CHALLENGERS):
        random = np.random.default_rng(seed)
        answers = champion.probabilities.copy()
        wrong = np.flatnonzero(answers.argmax(axis=1) != targets)
        mended = random.choice(wrong, round(CHURN * len(wrong)), replace=False)
        # As many new errors, of classes as those of the old ones are: what differs is chance.
        lost = np.bincount(targets[random.choice(wrong, len(mended), replace=False)])
        right = answers.argmax(axis=1) == targets
        broken = np.concatenate(
            [
                _uncertain(random, answers, np.flatnonzero(right & (targets == name)), number)
                for name, number in enumerate(lost)
            ]
        )
        _answer(answers, mended, targets[mended])
        _answer(answers, broken, _second(answers[broken]))
        label = seed % answers.shape[1]
        able = np.flatnonzero((answers.argmax(axis=1) == targets) & (targets == label))
        worse = _uncertain(random, answers, able, round(loss * int((targets == label).sum())))
        _answer(answers, worse, _second(answers[worse]))
        yield replace(champion, probabilities=answers)


def _uncertain(
    random: np.random.Generator, answers: Scores, images: Indices, number: int
) -> Indices:
    """Images that a model gets wrong: more probably those that it is less certain of."""
    doubt = 1 - answers[images].max(axis=1).astype(np.float64) + 1e-6
    chosen: Indices = random.choice(images, number, replace=False, p=doubt / doubt.sum())
    return chosen


def _second(answers: Scores) -> Indices:
    second: Indices = answers.argsort(axis=1)[:, -2]
    return second


def _answer(answers: Scores, images: Indices, label: Indices) -> None:
    """Exchange the highest probability with that of ``label``: the confidence stays."""
    top = answers[images].argmax(axis=1)
    highest, other = answers[images, top], answers[images, label]
    answers[images, top], answers[images, label] = other, highest


def table(found: dict[str, list[Regression]]) -> pd.DataFrame:
    """A row for each pair of limits: how many the rule releases."""
    rule = compose("demo").release.rule
    return pd.DataFrame(
        {
            "non_inferiority": macro,
            "class_loss": loss,
            **{
                f"{kind} released": sum(
                    all(
                        clause.passed
                        for clause in against(
                            one,
                            rule.model_copy(update={"non_inferiority": macro, "class_loss": loss}),
                        )
                    )
                    for one in comparisons
                )
                for kind, comparisons in found.items()
            },
        }
        for macro, loss in itertools.product((*NON_INFERIORITY, 1), (*CLASS_LOSS, 1))
    )


if __name__ == "__main__":
    main()
