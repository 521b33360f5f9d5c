import re
import resource
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr_assets import written
from cxr_assets.radiographs import naming, synthesis

KAGGLE_NAME = re.compile(
    r"(train|val|test)/"
    r"(NORMAL/(NORMAL2-)?IM-\d{4}-\d{4}(-\d{4})?|PNEUMONIA/person\d+_(bacteria|virus)_\d+)\.jpeg"
)


def images(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.jpeg")}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic_images") / "images"
    synthesis.make(root, patients=20, seed=0)
    return root


def test_names_and_folders_are_kaggles(root):
    assert all(KAGGLE_NAME.fullmatch(name) for name in images(root))
    assert "synthetic" in (root / synthesis.MARKER_FILE).read_text()


def test_patients_are_whole_and_in_every_split(root):
    splits = defaultdict(set)
    patientren = defaultdict(list)
    for path in root.rglob("*.jpeg"):
        name = naming.parse(path)
        splits[name.label, name.patient].add(path.relative_to(root).parts[0])
        patientren[name.label].append(name.patient)
    assert all(len(where) == 1 for where in splits.values())
    for label in naming.KAGGLE_CLASSES:
        assert len(set(patientren[label])) == 20
        assert len(patientren[label]) > 25, "many patients have several images"
        assert {next(iter(s)) for (of, _), s in splits.items() if of == label} == {
            "train",
            "val",
            "test",
        }


def test_numbers_repeat_between_the_causes(root):
    names = " ".join(images(root))
    assert "person5_bacteria_" in names
    assert "person5_virus_" in names


def test_the_seed_determines_the_images(tmp_path):
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        synthesis.make(tmp_path / name, patients=3, seed=seed)
    assert images(tmp_path / "one") == images(tmp_path / "two")
    assert not set(images(tmp_path / "one").values()) & set(images(tmp_path / "three").values())


@pytest.mark.parametrize("damage", ["empty", "missing", "seal"])
def test_images_that_are_not_whole_are_set_aside_and_made_again(damage, tmp_path):
    root = tmp_path / "images"
    synthesis.make(root, patients=3, seed=0)
    whole = images(root)
    victim = root / min(whole)
    if damage == "empty":
        victim.write_bytes(b"")
    elif damage == "missing":
        victim.unlink()
    else:
        victim = root / written.RECORD_FILE
        victim.write_bytes(b"")
    lines: list[str] = []
    synthesis.make(root, 3, 0, lines.append)
    assert images(root) == whole
    (line,) = lines
    assert line.startswith(f"set aside as {root}.broken and made again: {victim}")
    inode = root.stat().st_ino
    synthesis.make(root, 3, 0, lines.append)
    assert (root.stat().st_ino, len(lines)) == (inode, 1), "it is whole and kept"


def test_an_image_does_not_depend_on_the_number_of_patients(root, tmp_path):
    synthesis.make(tmp_path / "few", patients=3, seed=0)
    few = {Path(name).name: content for name, content in images(tmp_path / "few").items()}
    many = {Path(name).name: content for name, content in images(root).items()}
    assert few.items() <= many.items()


def test_images_are_made_once(tmp_path):
    target = tmp_path / "images"
    synthesis.make(target, patients=3, seed=0)
    first = {path: path.stat().st_mtime_ns for path in target.rglob("*.jpeg")}
    synthesis.make(target, patients=3, seed=0)
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*.jpeg")} == first
    old = images(target)
    synthesis.make(target, patients=3, seed=1)
    assert images(target) != old


def test_a_disk_that_fills_up_leaves_the_old_images(tmp_path):
    target = tmp_path / "images"
    synthesis.make(target, patients=3, seed=0)
    old = images(target)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            synthesis.make(target, patients=3, seed=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert images(target) == old
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("patients", [0, 2])
def test_too_few_patients_are_rejected(tmp_path, patients):
    with pytest.raises(ValueError, match=r"data\.synthetic_patients to 3"):
        synthesis.make(tmp_path / "images", patients, seed=0)
    assert not list(tmp_path.iterdir())


def test_frames_vary_and_do_not_reveal_the_class(root):
    shapes = defaultdict(list)
    for path in root.rglob("*.jpeg"):
        with Image.open(path) as image:
            assert image.mode == "L"
            shapes[naming.parse(path).label].append(image.size)
    every = np.concatenate([np.array(sizes) for sizes in shapes.values()])
    assert 200 < every.min() < 260
    assert 340 < every.max() < 460
    assert len({size for sizes in shapes.values() for size in sizes}) > 0.9 * len(every)
    for sizes in shapes.values():
        deviation = np.abs(np.mean(sizes, axis=0) - every.mean(axis=0))
        assert (deviation < 3 * every.std(axis=0) / len(sizes) ** 0.5).all()


def test_images_of_a_patient_are_similar_but_not_the_same(root):
    by_patient = defaultdict(list)
    for path in sorted(root.rglob("*.jpeg")):
        with Image.open(path) as image:
            small = np.asarray(image.resize((32, 32)), dtype=np.float64)
        by_patient[naming.parse(path).patient].append((small - small.mean()) / small.std())
    several = [patient for patient in by_patient.values() if len(patient) > 1]
    same = np.mean([np.abs(patient[0] - patient[1]).mean() for patient in several])
    other = np.mean([np.abs(a[0] - b[0]).mean() for a, b in pairwise(several)])
    assert 0 < same < other
