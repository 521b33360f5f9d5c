"""The main model against the released one, on test images that neither has learnt from."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from cxr_assets.evaluation import bootstrap, comparison, past
from cxr_assets.evaluation.images import Images
from cxr_assets.evaluation.metrics import evaluate
from cxr_assets.evaluation.scoring import Evaluated
from cxr_assets.layout import Layout
from cxr_assets.radiographs import dataset, membership
from cxr_assets.radiographs.membership import MembershipError
from cxr_serving.model.bundle import BundleError, BundleRecord, FormatError
from cxr_serving.model.comparison import Difference, Regression, SiteDifference
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.report import FEW_PATIENTS

# Sites with fewer patients are compared as one: a single patient moves the accuracy of a small site
# by more than any sensible limit.
SMALL_SITES = f"sites with fewer than {FEW_PATIENTS} patients"


class NotComparable(Exception):
    """Why a model cannot be compared with the released one; without any path, as it is published.

    Its cause, if any, has the details.
    """


@dataclass(frozen=True)
class Champion:
    """The released model.

    Attributes:
        predictor: its predictor.
        unseen: bool [N], the images that it cannot have learnt from; at least one.
    """

    predictor: Predictor
    unseen: npt.NDArray[np.bool_]


def champion(layout: Layout, images: Images, ours: BundleRecord) -> Champion | None:
    """The released model to compare with, or None where there is none.

    Images of a patient on whom it was trained or selected count as seen, even new ones.

    Args:
        layout: where releases and dataset lie.
        images: N images of the dataset.
        ours: record of the model that is compared with it.

    Raises:
        NotComparable: it is broken, has other classes, or has learnt from every patient.
        DecisionError: a decision on record is broken.
    """
    try:
        directory = past.champion(layout, ours.asset, ours.version)
        if directory is None:
            return None
        predictor = Predictor(directory)
        splits = membership.read(directory)
    except FormatError as error:
        raise NotComparable("it was made by another version of this program") from error
    except BundleError as error:
        raise NotComparable("it is broken") from error
    except MembershipError as error:
        raise NotComparable("it does not say which images it was trained on") from error
    if predictor.record.classes != ours.classes:
        raise NotComparable(f"its classes are {', '.join(predictor.record.classes)}")
    learnt = splits.loc[splits["split"].isin(["train", "val"]), "sha256"]
    rows = dataset.manifest(layout.processed)
    patients = rows.loc[rows["sha256"].isin(learnt), "patient"].dropna()
    unseen = ~images.table["patient"].isin(patients).to_numpy()
    if not unseen.any():
        raise NotComparable("it was trained or selected on every patient of the test split")
    return Champion(predictor, unseen)


def compare(
    images: Images, ours: Evaluated, champion: Evaluated, unseen: npt.NDArray[np.bool_]
) -> Regression:
    """Paired bootstrap over patients of the differences, ours minus the champion's.

    Args:
        images: N images.
        ours, champion: the two models on them, with the same classes.
        unseen: bool [N], the images to compare on.
    """
    classes = ours.record.classes
    table = images.table[unseen]
    targets = images.targets(classes)[unseen]
    drawn = bootstrap.draws(table["patient"])
    answers = [model.probabilities[unseen] for model in (ours, champion)]
    scores = [evaluate(answer, targets, classes) for answer in answers]
    draws = [bootstrap.scores(answer, targets, classes, drawn) for answer in answers]

    def recall(name: str) -> Difference | None:
        our, their = (part.classification_report.classes[name].recall for part in scores)
        if our is None or their is None:
            return None
        column = f"{name}/recall"
        return bootstrap.difference(draws[0][column] - draws[1][column], our - their)

    gains = _gains(answers, targets)
    return Regression(
        released=champion.record.version,
        same_data=champion.record.data_version == ours.record.data_version,
        images=len(table),
        patients=int(table["patient"].nunique()),
        left_out=int((~unseen).sum()),
        classes={name: recall(name) for name in classes},
        sites={
            str(site): _at_site(gains, (sites == site).to_numpy(), table["patient"], drawn)
            for sites in [_sites(table)]
            for site in sorted(sites.dropna().unique())
        },
        **dict(comparison.compare(*scores, *draws)),
    )


def _gains(
    answers: list[npt.NDArray[np.float32]], targets: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """1 where we alone are right, -1 where the champion alone is, else 0: float64 [N]."""
    ours, theirs = ((answer.argmax(axis=1) == targets).astype(float) for answer in answers)
    gains: npt.NDArray[np.float64] = ours - theirs
    return gains


def _sites(table: pd.DataFrame) -> pd.Series:
    """Site of each image: the source where it names none; small ones are pooled."""
    named = table.reindex(columns=["site", "source"])
    site = named["site"].fillna(named["source"])
    patients = table["patient"].groupby(site).transform("nunique")
    return site.mask(patients < FEW_PATIENTS, SMALL_SITES)


def _at_site(
    gains: npt.NDArray[np.float64],
    member: npt.NDArray[np.bool_],
    patients: pd.Series,
    drawn: torch.Tensor,
) -> SiteDifference:
    values = bootstrap.means(gains, drawn, member)
    found = bootstrap.difference(values, float(gains[member].mean()))
    return SiteDifference(
        **dict(found), images=int(member.sum()), patients=int(patients[member].nunique())
    )
