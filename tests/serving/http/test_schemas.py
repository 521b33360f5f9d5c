"""The service does what its OpenAPI document says: a program reads it and sends requests."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_operation_matches_the_document(guarded: Any, mode: GenerationMode) -> None:
    document = schemathesis.openapi.from_url(f"http://127.0.0.1:{guarded.port}/openapi.json")
    called = set()
    for result in document.get_all_operations():
        operation = result.ok()

        @given(operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=12,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        def ask(case: Any) -> None:
            # Bytes that fit the document need not be an image.
            case.call_and_validate(
                headers=guarded.headers, excluded_checks=[positive_data_acceptance]
            )

        try:
            ask()
        except Unsatisfiable:  # nothing to get wrong
            assert mode is GenerationMode.NEGATIVE
        else:
            called.add((operation.method.upper(), operation.path))
    assert ("POST", "/predict") in called
