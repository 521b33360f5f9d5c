"""The licence of a release, and how to cite it."""

from collections.abc import Collection
from typing import Any

import yaml

from cxr_serving.model import DISCLAIMER
from cxr_serving.model.bundle import BundleRecord

CITATION_FILE = "CITATION.cff"
LICENCE_FILE = "LICENSE.md"

KERMANY = (
    "D. Kermany, K. Zhang, M. Goldbaum, *Labeled Optical Coherence Tomography (OCT) and Chest "
    "X-Ray Images for Classification*, Mendeley Data, "
    "[doi:10.17632/rscbjbr9sj](https://doi.org/10.17632/rscbjbr9sj), CC BY 4.0"
)
_TERMS = {
    "apache-2.0": "Apache-2.0, like the program that generated the images and trained the weights.",
    "cc-by-4.0": "CC BY 4.0, like the images it was trained on; name their authors (see Data).",
    "cc-by-nc-4.0": (
        "CC BY-NC 4.0, no commercial use: ConvNeXt V2's pretrained weights are CC BY-NC "
        "([their licence](https://github.com/facebookresearch/ConvNeXt-V2#license)). Name the "
        "authors of the images, too (see Data)."
    ),
    "unknown": (
        "Not known to the program that wrote this: it follows from the terms of the images, and of "
        "the base weights and the teacher, if any, that the operator chose. Settle it before "
        "publishing."
    ),
}
_TEXTS = {
    "apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "cc-by-4.0": "https://creativecommons.org/licenses/by/4.0/legalcode",
    "cc-by-nc-4.0": "https://creativecommons.org/licenses/by-nc/4.0/legalcode",
}
_STRICTEST_FIRST = ("unknown", "cc-by-nc-4.0", "cc-by-4.0", "apache-2.0")
_SPDX = {"apache-2.0": "Apache-2.0", "cc-by-4.0": "CC-BY-4.0", "cc-by-nc-4.0": "CC-BY-NC-4.0"}

_IMAGES = {
    "type": "data",
    "title": (
        "Labeled Optical Coherence Tomography (OCT) and Chest X-Ray Images for Classification"
    ),
    "authors": [
        {"family-names": "Kermany", "given-names": "Daniel"},
        {"family-names": "Zhang", "given-names": "Kang"},
        {"family-names": "Goldbaum", "given-names": "Michael"},
    ],
    "year": 2018,
    "doi": "10.17632/rscbjbr9sj",
    "license": "CC-BY-4.0",
}
_NETWORK = {
    "type": "conference-paper",
    "title": "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders",
    "authors": [
        {"family-names": "Woo", "given-names": "Sanghyun"},
        {"family-names": "Debnath", "given-names": "Shoubhik"},
        {"family-names": "Hu", "given-names": "Ronghang"},
        {"family-names": "Chen", "given-names": "Xinlei"},
        {"family-names": "Liu", "given-names": "Zhuang"},
        {"family-names": "Kweon", "given-names": "In So"},
        {"family-names": "Xie", "given-names": "Saining"},
    ],
    "year": 2023,
    "url": "https://arxiv.org/abs/2301.00808",
}
_DINOV2_AUTHORS = (
    "Maxime Oquab, Timothée Darcet, Théo Moutakanni, Huy Vo, Marc Szafraniec, Vasil Khalidov, "
    "Pierre Fernandez, Daniel Haziza, Francisco Massa, Alaaeldin El-Nouby, Mahmoud Assran, "
    "Nicolas Ballas, Wojciech Galuba, Russell Howes, Po-Yao Huang, Shang-Wen Li, Ishan Misra, "
    "Michael Rabbat, Vasu Sharma, Gabriel Synnaeve, Hu Xu, Hervé Jegou, Julien Mairal, "
    "Patrick Labatut, Armand Joulin, Piotr Bojanowski"
)
_TEACHER = {
    "type": "article",
    "title": "DINOv2: Learning Robust Visual Features without Supervision",
    "authors": [
        dict(zip(("given-names", "family-names"), name.rsplit(" ", 1), strict=True))
        for name in _DINOV2_AUTHORS.split(", ")
    ],
    "year": 2023,
    "url": "https://arxiv.org/abs/2304.07193",
}
# By the first part of a hub id.
_WEIGHTS = {"facebook/convnextv2-": "cc-by-nc-4.0", "facebook/dinov2-": "apache-2.0"}


def base_model(record: BundleRecord) -> str | None:
    """Hub id of the base weights, where they came from the hub."""
    return None if record.pretrained is None else _hub_id(record.pretrained)


def _hub_id(identity: str) -> str | None:
    return identity.split("@")[0] if "@" in identity else None


def licence(record: BundleRecord, kinds: Collection[str]) -> str:
    """The strictest of the terms of images, base weights and teacher, as the Hub spells it.

    What a network learnt from a teacher's embeddings counts as what it learnt from base weights:
    nobody has settled that it is less.

    Args:
        record: of the released bundle.
        kinds: of the sources of the images, see :func:`cxr_assets.release.origin.kinds`.
    """
    if {"folder", "table"} & set(kinds):
        return "unknown"
    used = {"apache-2.0" if record.synthetic else "cc-by-4.0"}
    used |= {_of_weights(name) for name in (record.pretrained, record.teacher) if name is not None}
    return next(name for name in _STRICTEST_FIRST if name in used)


def _of_weights(identity: str) -> str:
    name = _hub_id(identity) or ""
    return next((terms for start, terms in _WEIGHTS.items() if name.startswith(start)), "unknown")


def terms(name: str) -> str:
    """The terms of a licence in a sentence or two.

    Args:
        name: what :func:`licence` returns.
    """
    return _TERMS[name]


def licence_note(name: str, data: str) -> str:
    """The contents of ``LICENSE.md``.

    Args:
        name: what :func:`licence` returns.
        data: what the images are, with their authors.
    """
    text = f"\n\nFull text: {_TEXTS[name]}" if name in _TEXTS else ""
    return (
        f"# Licence\n\n{_TERMS[name]}{text}\n\n## Data\n\n{data}\n\n"
        f"{DISCLAIMER} Without warranty of any kind.\n"
    )


def citation(record: BundleRecord, kinds: Collection[str], title: str, repo: str | None) -> str:
    """The contents of ``CITATION.cff``, format 1.2.0 (https://citation-file-format.github.io).

    Args:
        record: of the released bundle.
        kinds: of the sources of the images, see :func:`cxr_assets.release.origin.kinds`.
        title: of the release.
        repo: Hub repository, if any.
    """
    name = licence(record, kinds)
    content: dict[str, Any] = {
        "cff-version": "1.2.0",
        "message": "If you use this model, cite it, and the images and networks it was made from.",
        "type": "software",
        "title": title,
        "authors": [{"name": repo.split("/")[0] if repo else "Whoever trained this model"}],
        "version": record.version,
        "date-released": record.created_at.date(),
    }
    if name in _SPDX:
        content["license"] = _SPDX[name]
    content["references"] = [
        _NETWORK,
        *([_TEACHER] if record.teacher else []),
        *([_IMAGES] if "kaggle" in kinds else []),
    ]
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    return text
