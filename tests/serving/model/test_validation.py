import pytest
from pydantic import BaseModel, ValidationError, field_validator

from cxr_serving.model.validation import problems


class Record(BaseModel):
    secrets: dict[str, int]
    size: int


def error_of(content: object) -> ValidationError:
    with pytest.raises(ValidationError) as raised:
        Record.model_validate(content)
    return raised.value


def test_each_problem_is_named_with_its_place_and_no_value() -> None:
    found = problems(error_of({"secrets": {"key": "hunter2"}}))
    assert [line.partition(":")[0] for line in found] == ["secrets.key", "size"]
    assert "valid integer" in found[0]
    assert "hunter2" not in str(found)


def test_a_problem_with_the_whole_is_one_of_the_contents() -> None:
    [line] = problems(error_of(3))
    assert line.startswith("contents: Input should be a valid dictionary")


def test_places_can_be_spelled_another_way() -> None:
    lines = problems(error_of({"secrets": {}}), lambda place: f"CXR_{place[0]}".upper())
    assert lines == ["CXR_SIZE: Field required"]


def test_the_message_of_a_validator_stands_without_the_kind_of_the_error() -> None:
    class Even(BaseModel):
        size: int

        @field_validator("size")
        @classmethod
        def _is_even(cls, value: int) -> int:
            raise ValueError(f"{value} is not even")

    with pytest.raises(ValidationError) as raised:
        Even(size=3)
    assert problems(raised.value) == ["size: 3 is not even"]
