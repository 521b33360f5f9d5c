import pytest
from pydantic import BaseModel, Field, ValidationError, model_validator

from cxr_assets.ranges import is_repository, problems


class Inner(BaseModel):
    rate: float = Field(gt=0, le=1)
    widths: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _few(self) -> "Inner":
        if len(self.widths) > 2:
            raise ValueError("inner.widths has more than two values")
        return self


class Outer(BaseModel):
    inner: Inner
    share: float | None = Field(default=None, ge=0.25, lt=0.5)


def said(**content: object) -> str:
    with pytest.raises(ValidationError) as raised:
        Outer.model_validate(content)
    return problems(raised.value, Outer)


@pytest.mark.parametrize(
    ("content", "place", "bounds"),
    [
        ({"inner": {"rate": 0}}, "inner.rate: ", "not 0; it must be above 0 and at most 1"),
        ({"inner": {"rate": 1}, "share": 0.5}, "share: ", "it must be at least 0.25 and below 0.5"),
        ({"inner": {"rate": 1, "widths": ["wide"]}}, "inner.widths.0: ", "not wide"),
    ],
)
def test_a_number_out_of_range_is_named_with_its_range(
    content: dict[str, object], place: str, bounds: str
) -> None:
    text = said(**content)
    assert text.startswith(place)
    assert text.endswith(bounds)


def test_every_problem_is_named_and_that_of_a_group_in_its_own_words() -> None:
    text = said(inner={"rate": 1, "widths": [1, 2, 3]}, share=9)
    assert text.split("; ")[0] == "inner.widths has more than two values"
    assert "share: " in text


@pytest.mark.parametrize(
    ("name", "valid"),
    [("group/cxr", True), ("cxr", False), ("a/b/c", False), ("https://hf.co/a/b", False)],
)
def test_a_repository_is_an_owner_and_a_name(name: str, valid: bool) -> None:
    assert is_repository(name) is valid
