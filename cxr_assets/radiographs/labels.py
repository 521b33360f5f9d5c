"""From a source's own words to the classes of the experiment."""

import difflib
from collections.abc import Mapping, Sequence

import pandas as pd

from cxr_assets.radiographs.inventory import RawDataError


class Words:
    """Which class each word of a source means.

    Words are compared without case and surrounding blanks; nothing else is guessed.
    """

    def __init__(
        self,
        labels: Mapping[str, str | None],
        classes: Sequence[str],
        setting: str = "data.labels",
    ) -> None:
        """Take over the settings of a source.

        Args:
            labels: class by word; None for a word that is left out on purpose. They come before
                the names of the classes.
            classes: every name of a class is a word for it.
            setting: how messages name the setting that ``labels`` come from.

        Raises:
            RawDataError: one word is given two classes.
        """
        self.classes = tuple(classes)
        self._setting = setting
        self._means: dict[str, str | None] = {_folded(name): name for name in classes}
        given: dict[str, str] = {}
        for word, label in labels.items():
            before = given.setdefault(_folded(word), word)
            if labels[before] != label:
                raise RawDataError(
                    f"{setting} gives {before!r} and {word!r} different classes, but case and "
                    "blanks do not count: remove one of them"
                )
            self._means[_folded(word)] = label

    def classify(self, words: pd.Series) -> tuple[pd.Series, pd.Series]:
        """The class of each word, and why there is none: either is None where the other is not.

        Args:
            words: text; "" where nothing is said.
        """
        means = {word: self.meaning(word) for word in words.unique()}
        both = pd.DataFrame(
            [means[word] for word in words], index=words.index, columns=["label", "problem"]
        ).astype(object)
        return both["label"], both["problem"]

    def meaning(self, word: str) -> tuple[str | None, str | None]:
        """The class of one word, or why there is none."""
        label = self._means.get(_folded(word))
        return label, None if label is not None else self._problem(word, _folded(word))

    def _problem(self, word: str, key: str) -> str:
        if not key:
            return "label: there is none"
        if key in self._means:
            return f"excluded: {self._setting} leaves out {word!r}"
        near = difflib.get_close_matches(key, self._means, n=1)
        hint = f", such as {near[0]!r}" if near else ""
        return (
            f"label: {word!r} is no class ({', '.join(self.classes)}) and no word in "
            f"{self._setting}{hint}: add it there, with null to leave it out"
        )


def _folded(word: str) -> str:
    return word.strip().casefold()
