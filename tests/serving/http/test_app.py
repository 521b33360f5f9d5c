"""The application as its users meet it: a process of its own, a data root, and HTTP."""

import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from uvicorn.importer import import_from_string


def test_answers_may_not_be_framed_sniffed_or_kept(ready_server: Any) -> None:
    for path in ("/", "/health", "/static/main.js", "/nowhere"):
        headers = ready_server.client.get(path).headers
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert "server" not in headers


def test_openapi_describes_the_upload_and_the_errors(ready_server: Any) -> None:
    schema = ready_server.client.get("/openapi.json").json()
    assert "Not a medical device" in schema["info"]["description"]
    predict = schema["paths"]["/predict"]["post"]
    form = predict["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["properties"]["file"]["format"] == "binary"
    statuses = {"200", "400", "401", "408", "413", "415", "422", "429", "503", "504"}
    assert predict["responses"].keys() == statuses
    assert ready_server.client.get("/docs").status_code == 200


def test_asgi_servers_find_the_application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyproject = Path(__file__).parents[3] / "pyproject.toml"
    entrypoint = tomllib.loads(pyproject.read_text())["tool"]["fastapi"]["entrypoint"]
    assert entrypoint == "cxr_serving.app:app"
    monkeypatch.setenv("CXR_DATA_ROOT", str(tmp_path))
    monkeypatch.delitem(sys.modules, "cxr_serving.app", raising=False)
    app = import_from_string(entrypoint)
    assert app.state.service.settings.data_root == tmp_path
    with TestClient(app) as client:
        assert client.get("/health").json()["status"] == "alive"

    monkeypatch.setenv("CXR_PORT", "many")
    monkeypatch.delitem(sys.modules, "cxr_serving.app")
    with pytest.raises(SystemExit, match="CXR_PORT"):
        import_from_string(entrypoint)
