"""The words are those of radiology and machine learning: no reader needs a dictionary."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# History, names of packages, the licence, and the words themselves.
EXCEPT = {"CHANGELOG.md", "constraints.txt", "LICENSE", "tests/test_words.py"}

# What to avoid, as a regular expression for text in lower case, and the right word.
WORDS = {
    r"(?<!digiti[sz]ed )film": "image (code, API), radiograph (prose)",
    r"phantom": "synthetic image",
    r"\bdrawn (?:images?|ones)\b|\b(?:images?|ones),? drawn by a program": "synthetic image",
    r"golden": "reference",
    r"\b(?:per|each|every|another) child\b(?![- ]process)": "patient",
    r"\bin the house\b": "in flight, queued",
    r"\brooms\b|\bhouse rules\b|\bhow the house\b": "modules, packages",
    r"\barrows\b": "dependencies",
    r"\bturned over\b": "inverted",
    r"\bparted\b": "stratified, grouped",
    r"(?<!coefficient of )\bvariations?\b|\bvaried images?\b": "augmentation",
    r"\bmirror(?:ed)? images?\b": "horizontal flip",
    r"\bsp(?:eaks?|oke) for\b": "evidence for",
    # "heatmap" in quotes is the name of Grafana's panel.
    r'\bheat(?:[ _-]?maps?)?\b(?!")': "class activation map, CAM",
    r"\blikeliest\b": "top-1, most probable",
    r"\bwhat is taken for what\b": "confusion matrix",
    r"\bill\b": "positive",
    r"hardest": "most confident errors",
    r"\b(?:rows?|lines?) an? (?:source )?image\b": "per image",
    r"\bimages an? (?:step|pass|batch)\b": "per step, pass, batch",
    r"\btold\b(?! apart)": "reported",
    r"\brefus(?:e[ds]?|al|ing)\b(?<!connection refused)": "rejected",
    r"\bgo(?:es|ing) on (?:from|where)\b": "resumes, resuming",
    r"\bplain (?:way|service|one)\b": "baseline",
    r"\bshall\b": "must, or the plain verb",
    r"\b(?:of|from) before\b": "earlier, previous",
    r"cxr-predict|python -m cxr (?:assets|serving)": "cxr predict, evaluate, train, summary, serve",
    r"dagster asset materialize": "dg launch",
}
SAMPLES = {
    "film": "read_films",
    "phantom": "Phantoms",
    "speaks": "what spoke for it",
    "heat": "a heat map",
    "ill": "mask_of_ill",
    "child": "one row per child",
    "told": "is told so",
    "row": "one row a source image",
}
INNOCENT = (
    "a digitised film",
    'type: "heatmap"',
    "the child process of a child process",
    "kept and told apart",
    "validation is drawn by patient",
    "the host said: connection refused",
    "a grilled, still billed skill",
)


def wrong(text: str) -> list[tuple[str, str]]:
    """Each word in ``text`` that is to be avoided, in lower case, with the right one.

    The parts of a name in code, such as ``heat_map``, count as words.
    """
    text = text.replace("_", " ").lower()
    return [
        (found[0], right)
        for pattern, right in WORDS.items()
        for found in re.finditer(pattern, text)
    ]


def files() -> list[str]:
    """The files of the repository, new ones included."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git repository")
    return sorted(name for name in listed.stdout.split("\0") if name and name not in EXCEPT)


def test_old_words_are_not_used() -> None:
    found = []
    for name in files():
        found += [f"{name}: name: {word!r}: {right}" for word, right in wrong(name)]
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):  # a picture; a file deleted but not staged
            continue
        if not wrong(text):  # no pattern reaches beyond a line
            continue
        found += [
            f"{name}:{number}: {word!r}: {right}"
            for number, line in enumerate(text.splitlines(), 1)
            for word, right in wrong(line)
        ]
    assert not found, "\n".join(
        [f"{len(found)} words to replace by the last one of the line:", *found]
    )


@pytest.mark.parametrize("text", SAMPLES.values(), ids=SAMPLES)
def test_an_old_word_is_found(text: str) -> None:
    assert wrong(text)


@pytest.mark.parametrize("text", INNOCENT)
def test_a_legitimate_use_is_not_found(text: str) -> None:
    assert not wrong(text)
