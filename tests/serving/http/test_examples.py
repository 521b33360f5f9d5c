"""What OpenAPI shows as answers; they are made of the schemas, which check them."""

from typing import Any

from cxr_serving.http.app import create_app
from cxr_serving.http.schemas import ErrorAnswer
from cxr_serving.http.settings import Settings


def test_predict_shows_an_accepted_image_a_rejected_one_and_the_error_instead() -> None:
    responses = create_app(Settings()).openapi()["paths"]["/predict"]["post"]["responses"]

    def values(status: str) -> list[Any]:
        found = responses[status]["content"]["application/json"]
        assert found["schema"]
        return [example["value"] for example in found["examples"].values()]

    accepted, rejected = values("200")
    assert accepted["accepted"] is True
    assert "repaired" not in accepted, "FastAPI leaves null out of the document"
    assert (rejected["accepted"], rejected["reasons"]) == (False, ["rotated_90"])
    assert rejected["repaired"]["label"] != rejected["label"]
    [error] = map(ErrorAnswer.model_validate, values("422"))
    assert (error.error.code, error.error.reasons) == ("image_rejected", rejected["reasons"])
