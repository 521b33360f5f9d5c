"""Which model serves, and who may change it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import reports

PublishBundle = Callable[..., Path]


def test_model_is_described_by_its_record(ready_server: Any) -> None:
    body = ready_server.client.get("/model").json()
    [directory] = (ready_server.data_root / "models" / "convnext_model").glob("2*")
    assert body["model"] == json.loads((directory / "bundle.json").read_text())
    assert (body["runtime"], body["following"], body["pinned"]) == ("onnx", "newest", False)
    assert body["gate"] == "flag"
    assert body["model"]["gate"]["validation"]["rejected"] == 2
    assert body["test"] is None
    assert "Not a medical device" in body["disclaimer"]


def test_keys_rate_limit_pins_and_report(
    serve: Callable[..., Any], publish_bundle: PublishBundle, tmp_path: Path, image: bytes
) -> None:
    keys, admins = tmp_path / "keys", tmp_path / "admins"
    keys.write_text("# of the wards\nward-3 aaaaaaaaaaaaaaaa\n")
    admins.write_text("on-call bbbbbbbbbbbbbbbb\n")
    server = serve(tmp_path, keys_file=keys, admin_keys_file=admins, rate_limit="12/minute")
    older = publish_bundle(server.data_root, seed=1)
    newer = publish_bundle(server.data_root, seed=2)
    report = reports.publish(server.data_root, newer.name)
    server.wait_for_version(newer.name)

    def ask(method: str, path: str, key: str = "a" * 16, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"}
        answer: httpx.Response = server.client.request(method, path, headers=headers, **options)
        return answer

    for key in ("x", "a" * 15, "b" * 16):
        rejected = ask("POST", "/predict", key, files={"file": image})
        assert (rejected.status_code, rejected.json()["error"]["code"]) == (401, "unauthorized")
        assert rejected.headers["WWW-Authenticate"] == "Bearer"
    assert server.client.get("/model").status_code == 401
    assert ask("POST", "/predict", files={"file": image}).status_code == 200
    test = ask("GET", "/model").json()["test"]
    assert test["images"] == 624
    assert test["metrics"]["macro_f1"] == {"value": 0.75, "low": 0.6, "high": 0.8}
    report.write_text("{")
    broken = ask("GET", "/model").json()
    assert broken["test"] is None
    assert str(report) in broken["test_problem"]

    assert ask("POST", "/model/pin", json={"version": older.name}).status_code == 401
    pinned = ask("POST", "/model/pin", "b" * 16, json={"version": older.name})
    assert pinned.status_code == 200
    assert pinned.json()["pinned"] == older.name
    assert [m["status"] for m in pinned.json()["models"]] == ["previous", "serving"]
    answer = ask("POST", "/predict", files={"file": image}).json()
    assert answer["model"]["version"] == older.name
    assert ask("GET", "/model").json()["pinned"] is True
    missing = ask("POST", "/model/pin", "b" * 16, json={"version": "20200101T000000Z-00000000"})
    assert (missing.status_code, missing.json()["error"]["code"]) == (409, "not_servable")
    wrong = ask("POST", "/model/pin", "b" * 16, json={"version": "../../etc"})
    assert wrong.status_code == 422
    assert ask("POST", "/model/unpin", "b" * 16).json()["pinned"] is None
    assert ask("GET", "/models").json()["models"][0]["status"] == "serving"

    keys.write_text("ward-4 cccccccccccccccc\n")
    assert ask("GET", "/models").status_code == 401
    allowed = [ask("GET", "/models", "c" * 16) for _ in range(13)]
    assert [answer.status_code for answer in allowed] == [200] * 12 + [429]
    assert allowed[-1].json()["error"]["code"] == "rate_limited"
    assert 1 <= int(allowed[-1].headers["Retry-After"]) <= 60
    keys.write_text("")
    assert ask("GET", "/models", "d" * 16).status_code == 401
    assert "the previous keys stay valid" in server.log()
    assert "aaaaaaaa" not in server.log()
