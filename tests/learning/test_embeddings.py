import os
import sys
from pathlib import Path

import pandas as pd
import pytest
import tiny
import torch
from learning.probing import backbone, train
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification

from cxr_assets.layout import Layout
from cxr_assets.learning import embeddings
from cxr_assets.learning.embeddings import embed
from cxr_assets.radiographs.dataset import MANIFEST_FILE, kept, manifest


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """18 images to train on, 18 to validate."""
    layout = Layout(tmp_path / "data")
    tiny.processed(layout, images=6)
    return layout


def test_the_backbone_of_a_bundle_embeds_nothing_again(layout):
    directory, _ = train(layout)
    network = AutoModelForImageClassification.from_pretrained(directory)
    images = pd.concat([kept(layout.processed, "val"), kept(layout.processed, "train")])
    lines: list[str] = []
    embed(network.dinov2, layout, images, lines.append)
    assert lines == ["embeddings of 36 images reused"]


def test_another_split_of_the_same_images_embeds_nothing_again(layout):
    images = pd.concat([kept(layout.processed, "train"), kept(layout.processed, "val")])
    expected = embed(backbone(), layout, images, lambda line: None)
    order = torch.randperm(len(images)).tolist()
    lines: list[str] = []
    again = embed(backbone(), layout, images.iloc[order], lines.append)
    assert lines == ["embeddings of 36 images reused"]
    assert torch.equal(again, expected[order])


def test_new_images_are_embedded_alone_and_as_if_all_were_new(layout, tmp_path):
    images = kept(layout.processed, "test")
    embed(backbone(), layout, images.iloc[4:], lambda line: None)
    lines: list[str] = []
    grown = embed(backbone(), layout, images, lines.append)
    assert lines == ["embeddings of 23 images reused", "embedded 4 of 4 images"]

    fresh = Layout(tmp_path / "fresh")
    tiny.processed(fresh, images=6)
    assert torch.equal(grown, embed(backbone(), fresh, images, lambda line: None))


def test_another_backbone_or_input_size_has_embeddings_of_its_own(layout, tmp_path):
    images = kept(layout.processed, "train")
    ours = embed(backbone(0), layout, images, lambda line: None)
    lines: list[str] = []
    theirs = embed(backbone(1), layout, images, lines.append)
    assert lines == ["embedded 18 of 18 images"]
    assert not torch.equal(ours, theirs)


def test_an_accelerator_has_embeddings_of_its_own(layout, monkeypatch):
    images = kept(layout.processed, "train")
    embed(backbone(), layout, images, lambda line: None)
    monkeypatch.setattr(embeddings, "accelerator", lambda: torch.device("cuda"))
    lines: list[str] = []
    embed(backbone(), layout, images, lines.append)
    assert lines == ["embedded 18 of 18 images"]


def test_a_terminal_gets_a_bar_and_a_log_does_not(layout, monkeypatch, capsys):
    images = kept(layout.processed, "train")
    embed(backbone(0), layout, images, lambda line: None)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    embed(backbone(1), layout, images, lambda line: None)
    assert "18/18" in capsys.readouterr().err


def test_embeddings_made_before_an_interruption_are_kept(layout, monkeypatch):
    monkeypatch.setattr(embeddings, "_CHUNK", 10)

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(backbone(), layout, kept(layout.processed, "train"), stop)
    lines: list[str] = []
    embed(backbone(), layout, kept(layout.processed, "train"), lines.append)
    assert lines == ["embeddings of 10 images reused", "embedded 8 of 8 images"]


def test_saves_are_fewer_the_more_is_there(layout, monkeypatch):
    monkeypatch.setattr(embeddings, "_CHUNK", 2)
    monkeypatch.setattr(embeddings, "_SHARE", 1)
    lines: list[str] = []
    embed(backbone(), layout, kept(layout.processed, "train"), lines.append)
    assert lines == [f"embedded {number} of 18 images" for number in (2, 4, 8, 16, 18)]


@pytest.mark.parametrize("damage", ["cut off", "emptied", "altered"])
def test_a_broken_file_of_embeddings_is_reported_and_made_again(layout, damage):
    images = kept(layout.processed, "train")
    expected = embed(backbone(), layout, images, lambda line: None)
    [path] = layout.embeddings.glob("*.safetensors")
    content = path.read_bytes()
    path.write_bytes(
        {
            "cut off": content[: len(content) // 2],
            "emptied": b"",
            "altered": content[:-1] + bytes([content[-1] ^ 1]),
        }[damage]
    )
    lines: list[str] = []
    assert torch.equal(embed(backbone(), layout, images, lines.append), expected)
    assert len(lines) == 2
    assert lines[0].startswith(f"{path} is broken")
    assert lines[1] == "embedded 18 of 18 images"
    assert path.read_bytes() == content


def test_embeddings_of_recently_used_backbones_are_kept(layout):
    images = kept(layout.processed, "train").head(2)
    files: list[Path] = []
    for seed in range(4):
        embed(backbone(seed), layout, images, lambda line: None)
        [new] = set(layout.embeddings.glob("*.safetensors")) - set(files)
        os.utime(new, (seed, seed))
        files.append(new)
    embed(backbone(0), layout, images, lambda line: None)
    embed(backbone(4), layout, images, lambda line: None)
    left = set(layout.embeddings.glob("*.safetensors"))
    assert len(left) == 4
    assert set(files) - left == {files[1]}, "the one that was not used for longest"


def remove(layout: Layout, images: pd.DataFrame) -> None:
    """As if images had left the processed dataset."""
    rows = manifest(layout.processed)
    rows[~rows["sha256"].isin(images["sha256"])].to_parquet(layout.processed / MANIFEST_FILE)


def embedded(layout: Layout) -> list[int]:
    """How many images each file of embeddings holds."""
    return [
        len(load_file(path)["images"]) for path in sorted(layout.embeddings.glob("*.safetensors"))
    ]


def test_embeddings_of_removed_images_are_deleted_for_every_backbone(layout):
    """Though nothing new is computed."""
    images = kept(layout.processed, "train")
    for seed in range(2):
        embed(backbone(seed), layout, images, lambda line: None)
    remove(layout, images.iloc[:10])
    lines: list[str] = []
    embed(backbone(), layout, images.iloc[10:], lines.append)
    assert lines == ["embeddings of 8 images reused"]
    assert embedded(layout) == [8, 8]


def test_a_part_of_the_dataset_leaves_the_embeddings_of_the_rest(layout):
    images = kept(layout.processed, "train")
    embed(backbone(), layout, images.iloc[:10], lambda line: None)
    embed(backbone(), layout, images.iloc[10:], lambda line: None)
    assert embedded(layout) == [18]
