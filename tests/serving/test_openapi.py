"""The service does what its OpenAPI document says, asked by a program that reads it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

KEY = "0123456789abcdef"
HEADERS = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="session")
def guarded(
    serve: Callable[..., Any],
    publish_bundle: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    folder = tmp_path_factory.mktemp("guarded")
    keys = folder / "keys"
    keys.write_text(f"all {KEY}\n")
    server = serve(folder, keys_file=keys, admin_keys_file=keys)
    server.wait_for_version(publish_bundle(server.data_root, seed=1).name)
    return server


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_operation_keeps_to_the_document(guarded: Any, mode: GenerationMode) -> None:
    document = schemathesis.openapi.from_url(f"http://127.0.0.1:{guarded.port}/openapi.json")
    asked = set()
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
            # Bytes that fit the document need not be a film.
            case.call_and_validate(headers=HEADERS, excluded_checks=[positive_data_acceptance])

        try:
            ask()
        except Unsatisfiable:  # nothing to get wrong
            assert mode is GenerationMode.NEGATIVE
        else:
            asked.add((operation.method.upper(), operation.path))
    assert ("POST", "/predict") in asked
