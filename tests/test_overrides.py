import json
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_assets.experiment import ExperimentError, compose
from cxr_assets.overrides import join, literal, split, without_places
from cxr_assets.sweep import expand

ODD = [
    "/data/my images (2024)/Häuser",
    "/data/a,b;c & d=e",
    "/data/#1 50%20?x@y:z",
    '/data/it\'s "here"',
    "/data/back\\slash\\",
    "/data/${HOME}/{x}/[y]/$z",
    "~/My Drive/chest_xray",
    "2024",
]


def folder(*overrides: str) -> Path | None:
    return compose("scratch", overrides).data.folder


@pytest.mark.parametrize("path", ODD)
def test_every_path_can_be_named(path: str) -> None:
    # As an argument of a program, in CXR_OVERRIDES quoted as in a shell, and quoted whole.
    place = Path(path).expanduser()
    assert folder(f"data.folder={path}") == place
    assert folder(*split(f"seed=1 data.folder={shlex.quote(path)}")) == place
    assert folder(*split(f"seed=1 {shlex.quote(f'data.folder={path}')}")) == place
    weights = compose("demo", [f"probe.pretrained={path}"] if path.startswith("/") else [])
    assert weights.probe.pretrained == (path if path.startswith("/") else None)


@settings(max_examples=6, deadline=None)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_any_path_is_taken_as_it_is(name: str) -> None:
    path = f"/{name}"
    assert folder(*split(f"data.folder={shlex.quote(path)}")) == Path(path)


def test_what_is_quoted_for_hydra_already_is_not_quoted_twice() -> None:
    assert folder("data.folder='/my images, (all)'") == Path("/my images, (all)")
    assert folder(*split("\"data.folder='/my images'\"")) == Path("/my images")


def test_hydras_grammar_still_holds_for_other_keys() -> None:
    words = split("seed=7 model.depths=[1,1,2,1] 'trainer.augmentation={flip: 0.25}'")
    experiment = compose("demo", [*words, "model.pretrained=null"])
    assert experiment.seed == 7
    assert experiment.model.depths == (1, 1, 2, 1)
    assert experiment.trainer.augmentation.flip == 0.25
    assert experiment.model.pretrained is None


def test_a_list_may_go_over_several_lines() -> None:
    text = """data=sources
      data.sources="[
        {name: clinic, source: table, table: '/images/our clinic.csv', columns: {path: File}},
        {name: partner, source: folder, folder: /images/partner, use: test}]"
    """
    clinic, partner = compose("scratch", split(text)).data.listed
    assert (clinic.table, clinic.columns.path) == (Path("/images/our clinic.csv"), "File")
    assert (partner.folder, partner.use) == (Path("/images/partner"), "test")


def test_what_is_joined_is_split_again() -> None:
    words = [f"data.folder={path}" for path in ODD] + ["model.depths=[1,1]", "a='b c'", ""]
    assert split(join(words)) == words
    assert join(["seed=7", "model.depths=[1,1]"]) == "seed=7 model.depths=[1,1]"


def test_a_mistake_shows_how_to_quote() -> None:
    with pytest.raises(ExperimentError, match=r"(?s)it's.*No closing quotation.*data\.folder='"):
        split("data.folder=it's")
    with pytest.raises(ExperimentError, match=r"'images/x' is not of the form key=value.*quote"):
        folder(*split("data.folder=/my images/x"))


@pytest.mark.parametrize(
    "value",
    [
        *(True, None, 3, 0.1, "true", "a, b", "it's", "facebook/convnextv2-tiny", "/a/b.csv", ""),
        ["normal", "null", "1"],
        {"No Finding": "normal", "a:b,(c)": None, "x": [{"y": "z w"}]},
    ],
)
def test_a_literal_is_parsed_to_the_same_value(value: object) -> None:
    parsed = OverridesParser.create().parse_override(f"key={literal(value)}")
    assert parsed.value() == value


def test_places_are_left_out_where_others_may_read() -> None:
    overrides = ["seed=1", "data.folder=/x", "+data.sources=[{table: t.csv}]", "data=table"]
    assert without_places(overrides) == ["seed=1", "data=table"]


WORDS = [
    "Bacterial Pneumonia",
    "J15.9",
    "Lungenentzündung",
    "Pneumonie (bakt.), Verdacht: ja",
    "01",
    "null",
    "a=b",
    "it's 100% [x] {y} ${z}",
]


@pytest.mark.parametrize("word", WORDS)
def test_every_word_of_a_table_can_be_given_a_class(word: str) -> None:
    given = [f"data.labels.{word}=normal", "data.labels.Lateral=null"]
    expected = {word: "normal", "Lateral": None}
    assert compose("demo", given).data.labels == expected
    assert compose("demo", split(join(given))).data.labels == expected
    whole = f"data.labels={json.dumps(expected)}"
    assert compose("demo", [whole]).data.labels == expected
    [job] = expand("demo", given)
    assert job.experiment.data.labels == expected


def test_words_that_are_numbers_stay_as_they_are_written() -> None:
    labels = compose("demo", ["data.labels={0: normal, 01: null}"]).data.labels
    assert labels == {"0": "normal", "01": None}
    assert compose("demo", ["data.labels={0: normal}"]).data.labels == {"0": "normal"}
    assert compose("demo", ["data.columns.label=1"]).data.columns.label == "1"


@pytest.mark.parametrize("table", ["~/labels.csv", "/data/Häuser, (2024)/a.csv"])
def test_a_table_among_several_sources_may_lie_anywhere(table: str) -> None:
    sources = f"data.sources=[{{name: a, source: table, table: '{table}'}}]"
    assert (
        compose("demo", ["data=sources", sources]).data.listed[0].table == Path(table).expanduser()
    )
    bare = f"data.sources=[{{name: a, source: table, table: {table.partition(',')[0]}}}]"
    place = compose("demo", ["data=sources", bare]).data.listed[0].table
    assert place == Path(table.partition(",")[0]).expanduser()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.labels.=normal", "expected data.labels.WORD=CLASS"),
        ("data.labels.Viral=vrial", "data.labels maps 'Viral' to 'vrial', which is no class"),
        ("data.sources=[{name: ä", r"write it as in data.sources='\[\{name: a"),
    ],
)
def test_what_cannot_be_read_is_named_with_an_example(override: str, message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        compose("demo", [override])
