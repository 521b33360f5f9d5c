import os
import random
import socket
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
import requests
from damage import alter, empty
from radiographs import handmade
from radiographs.kaggle_stand_in import KaggleStandIn, point_client_to, serve

from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_assets.radiographs import kaggle, raw, synthesis
from cxr_assets.radiographs.naming import KAGGLE_CLASSES
from cxr_assets.radiographs.preparation import prepare

DATASET = "paultimothymooney/chest-xray-pneumonia"
MIB = 1 << 20


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Packed like Kaggle's archive: with a nested second copy and macOS metadata files."""
    root = tmp_path_factory.mktemp("images") / "chest_xray"
    synthesis.make(root, patients=3, seed=0)
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        for path in sorted(root.rglob("*.jpeg")):
            name = path.relative_to(root).as_posix()
            packed.write(path, f"chest_xray/{name}")
            packed.write(path, f"chest_xray/chest_xray/{name}")
            packed.writestr(f"chest_xray/__MACOSX/{name}", b"\0")
        packed.writestr("chest_xray/train/NORMAL/.DS_Store", random.Random(0).randbytes(2 * MIB))
    return content.getvalue()


@pytest.fixture
def stand_in(archive: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[KaggleStandIn]:
    with serve(archive) as kaggle_stand_in:
        point_client_to(kaggle_stand_in.url, monkeypatch)
        yield kaggle_stand_in


@pytest.fixture
def said() -> list[str]:
    return []


def fetch(tmp_path: Path, said: list[str], dataset: str = DATASET) -> Path:
    return kaggle.fetch(dataset, tmp_path / "cache", said.append)


def archives(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache").rglob("*.archive"))


def test_the_full_experiment_collects_what_kaggle_serves(stand_in, tmp_path, said):
    layout = Layout(tmp_path / "data")
    images = raw.collect(compose("full").data, KAGGLE_CLASSES, layout, said.append)
    assert (
        images.roots["kaggle"]
        == (
            layout.raw / "kaggle" / "datasets" / DATASET / "versions" / "2" / "chest_xray"
        ).resolve()
    )
    assert not images.synthetic
    assert images.inventory["problem"].isna().all()
    assert set(images.inventory["split"]) == {"train", "val", "test"}
    assert not any(".DS_Store" in path for path in images.inventory["path"])
    again = raw.collect(compose("full").data, KAGGLE_CLASSES, layout, said.append)
    assert again.unchanged
    assert stand_in.ranges == [None], "the second collection must download nothing"
    assert not list(layout.raw.rglob("*.archive"))


@pytest.mark.parametrize("use", ["all", "train"])
def test_kaggle_is_one_of_several_sources(stand_in, tmp_path, said, use):
    layout = Layout(tmp_path / "data")
    table = tmp_path / "clinic" / "labels.csv"
    rows = ["path,label,patient"]
    for number in range(18):
        handmade.write(table.with_name(f"{number}.png"), number)
        rows.append(f"{number}.png,{KAGGLE_CLASSES[number % 3]},p{number}")
    table.write_text("\n".join(rows))
    sources = (
        f"[{{name: clinic, source: table, table: {table}}}, "
        f"{{name: kaggle, source: kaggle, dataset: {DATASET}, use: {use}}}]"
    )
    settings = ("data=sources", f"data.sources={sources}", "data.image_size=32")
    data = compose("scratch", settings).data
    images = raw.collect(data, KAGGLE_CLASSES, layout, said.append)
    record, _ = prepare(layout, images, data, KAGGLE_CLASSES, said.append)
    assert sum(record.sources["clinic"].values()) == 18
    downloaded = sum(record.sources["kaggle"].values())
    assert downloaded == (images.inventory["source"] == "kaggle").sum() - sum(
        record.skipped.values()
    )
    assert ("test" in record.sources["kaggle"]) == (use == "all")
    assert all(count for split in record.counts.values() for count in split.values())

    stand_in.status = 500
    with pytest.raises(raw.RawDataError, match=f"HTTP 500 for {DATASET}"):
        raw.collect(data, KAGGLE_CLASSES, layout, said.append)
    assert raw.read(layout).data_version == images.data_version, "the last inventory stays"
    stand_in.status = 200
    again = raw.collect(data, KAGGLE_CLASSES, layout, said.append)
    assert again.unchanged
    assert prepare(layout, again, data, KAGGLE_CLASSES, said.append) == (record, True)
    assert len(stand_in.ranges) == 1, "one download"


@pytest.mark.parametrize("damage", [empty, alter, Path.unlink])
def test_a_broken_download_is_set_aside_and_downloaded_again(damage, stand_in, tmp_path, said):
    root = fetch(tmp_path, said)
    victim = next(root.rglob("IM-*.jpeg"))
    whole = victim.read_bytes()
    damage(victim)
    assert fetch(tmp_path, said) == root
    assert victim.read_bytes() == whole
    assert stand_in.ranges == [None, None]
    aside = root.with_name(f"{root.name}.broken")
    (report,) = [line for line in said if line.startswith(f"set aside as {aside}")]
    assert str(victim) in report
    assert fetch(tmp_path, said) == root
    assert stand_in.ranges == [None, None], "it is whole again"


def test_a_copied_cache_with_other_file_times_is_reused(stand_in, tmp_path, said):
    root = fetch(tmp_path, said)
    for path in root.rglob("*"):
        os.utime(path, (1, 1))
    assert fetch(tmp_path, said) == root
    assert stand_in.ranges == [None]


def test_a_broken_cache_is_never_accepted_even_if_not_replaced(stand_in, tmp_path, said):
    root = fetch(tmp_path, said)
    empty(next(root.rglob("IM-*.jpeg")))
    stand_in.cuts = [5000]
    with pytest.raises(kaggle.KaggleError):
        fetch(tmp_path, said)
    root.mkdir()  # what extracting would leave, were it killed at once
    fetch(tmp_path, said)
    assert (root / "chest_xray" / "test" / "NORMAL").is_dir()


def test_a_cut_download_is_resumed_at_once(stand_in, tmp_path, said):
    stand_in.cuts = [MIB + 5000]
    root = fetch(tmp_path, said)
    assert (root / "chest_xray" / "test" / "NORMAL").is_dir()
    assert stand_in.ranges == [None, None, f"bytes={MIB}-"]
    assert any("broke" in line and "resuming" in line for line in said)


def test_a_cut_download_is_resumed_by_the_next_call(stand_in, tmp_path, said):
    stand_in.cuts = [MIB + 5000, MIB, 5000]
    with pytest.raises(kaggle.KaggleError, match=r"1,048,576 bytes are kept.*experiment=demo"):
        fetch(tmp_path, said)
    assert [path.stat().st_size for path in archives(tmp_path)] == [MIB]
    fetch(tmp_path, said)
    assert stand_in.ranges[-1] == f"bytes={MIB}-"


def test_a_wrong_checksum_is_rejected_and_the_next_call_starts_again(stand_in, tmp_path, said):
    right, stand_in.md5 = stand_in.md5, "AAAAAAAAAAAAAAAAAAAAAA=="
    with pytest.raises(kaggle.KaggleError, match=r"does not match the checksum.*run again"):
        fetch(tmp_path, said)
    assert archives(tmp_path) == []
    stand_in.md5 = right
    assert fetch(tmp_path, said).is_dir()


@pytest.mark.parametrize("damage", ["no archive", "truncated", "altered"])
def test_a_broken_archive_is_deleted(stand_in, tmp_path, said, damage, archive):
    broken = {
        "no archive": b"<html>try again later</html>",
        "truncated": archive[: len(archive) // 2],
        "altered": archive[:200] + bytes(200) + archive[400:],
    }
    stand_in.archive, stand_in.md5 = broken[damage], None
    with pytest.raises(kaggle.KaggleError, match=r"is broken.*run again"):
        fetch(tmp_path, said)
    assert archives(tmp_path) == []
    stand_in.archive = archive
    assert fetch(tmp_path, said).is_dir()


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "there are no credentials"),
        (403, "there are no credentials"),
        (404, "data.dataset must be owner/name"),
        (503, "try again later"),
    ],
)
def test_http_errors_say_what_to_do(stand_in, tmp_path, said, status, advice):
    stand_in.status = status
    with pytest.raises(kaggle.KaggleError, match=f"{status}.*{advice}") as caught:
        fetch(tmp_path, said)
    assert DATASET in str(caught.value)
    assert isinstance(caught.value, kaggle.UnreachableError) == (status == 503)


def test_credentials_are_used_but_never_logged_or_sent_to_the_store(
    stand_in, tmp_path, said, monkeypatch, capfd
):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "not-for-the-log")
    fetch(tmp_path, said)
    assert set(stand_in.api_tokens) == {"Bearer not-for-the-log"}
    assert stand_in.store_tokens == [None]
    stand_in.status = 403
    with pytest.raises(kaggle.KaggleError, match="may have expired") as caught:
        fetch(tmp_path, said)
    output = capfd.readouterr()
    shown = " ".join([*said, str(caught.value), output.out, output.err])
    assert "not-for-the-log" not in shown


def test_without_network_the_error_names_the_host_and_an_experiment_that_works(
    tmp_path, said, monkeypatch
):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    point_client_to(f"http://127.0.0.1:{port}", monkeypatch)
    layout = Layout(tmp_path / "data")
    with pytest.raises(raw.RawDataError, match=r"127\.0\.0\.1 could not be reached") as caught:
        raw.collect(compose("full").data, KAGGLE_CLASSES, layout, said.append)
    message = str(caught.value)
    assert "Connection refused" in message
    assert "experiment=demo" in message
    assert "experiment=scratch" in message


def test_a_host_that_never_answers_times_out(tmp_path, said, monkeypatch):
    monkeypatch.setattr(kaggle, "READ_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        point_client_to(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        with pytest.raises(kaggle.UnreachableError, match="timed out"):
            fetch(tmp_path, said)


def test_a_downloaded_pinned_version_needs_no_network(stand_in, tmp_path, said):
    pinned = f"{DATASET}/versions/2"
    root = fetch(tmp_path, said, pinned)
    requests = len(stand_in.api_tokens)
    assert fetch(tmp_path, said, pinned) == root
    assert len(stand_in.api_tokens) == requests


@pytest.mark.parametrize("dataset", ["", "one-word", "a/b/c", "a/b/versions/two"])
def test_an_invalid_name_is_rejected(tmp_path, said, dataset):
    with pytest.raises(kaggle.KaggleError, match="cannot be downloaded"):
        fetch(tmp_path, said, dataset)


def test_a_cache_that_cannot_be_written_is_named(stand_in, tmp_path, said):
    (tmp_path / "cache").write_text("a file where the cache should be")
    with pytest.raises(kaggle.KaggleError, match=r"cannot be stored in .*cache"):
        fetch(tmp_path, said)


def test_the_process_is_left_unchanged(stand_in, tmp_path, said, monkeypatch):
    monkeypatch.setenv("KAGGLEHUB_CACHE", "/elsewhere")
    before = dict(os.environ), requests.Session.send
    fetch(tmp_path, said)
    stand_in.status = 404
    with pytest.raises(kaggle.KaggleError):
        fetch(tmp_path, said)
    assert (dict(os.environ), requests.Session.send) == before
