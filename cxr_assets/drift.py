"""Drift of the images that the running service answers, read from its metrics."""

from datetime import datetime, timedelta

import requests
from prometheus_client.parser import text_string_to_metric_families

from cxr_assets.witness import masked

# As in the alert ImagesDrift of deploy/alerts.yml.
LIMIT = 0.25
FEWEST = 200
LASTING = timedelta(hours=1)

_ACTED = "acted"


class NotMeasured(Exception):
    """The service does not say how its images drift; the message says why."""


def measured(url: str | None) -> dict[str, float] | None:
    """PSI of the last images against the validation images, by what is compared.

    Args:
        url: address of the service; None where there is none to watch.

    Returns:
        None while the service has answered too few images since its start or a new model.

    Raises:
        NotMeasured: there is none, it does not answer, or with something else than metrics.
    """
    if url is None:
        raise NotMeasured("no service is watched: CXR_SERVICE_URL is not set")
    try:
        response = requests.get(f"{url}/metrics", timeout=10)
        response.raise_for_status()
        families = list(text_string_to_metric_families(response.text))
    except (requests.RequestException, ValueError) as error:
        raise NotMeasured(f"the service does not answer: {masked(str(error))}") from error
    samples = [sample for family in families for sample in family.samples]
    images = sum(sample.value for sample in samples if sample.name == "cxr_drift_images")
    if images < FEWEST:
        return None
    return {s.labels["of"]: s.value for s in samples if s.name == "cxr_drift_psi"}


def follow(cursor: str | None, psi: dict[str, float] | None, now: datetime) -> tuple[str, bool]:
    """Whether to act on the drift now: once, after it has lasted for an hour.

    A restart of the service or a new model, after which there are too few images, does not end it.

    Args:
        cursor: what this returned at the last call; None or empty at first.
        psi: as measured now.
        now: with a time zone.

    Returns:
        The next cursor, and whether to act.
    """
    if psi is None:
        return cursor or "", False
    if not any(value > LIMIT for value in psi.values()):
        return "", False
    if not cursor:
        return now.isoformat(), False
    if cursor == _ACTED or now - datetime.fromisoformat(cursor) < LASTING:
        return cursor, False
    return _ACTED, True
