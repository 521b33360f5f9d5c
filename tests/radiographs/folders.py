"""A small folder of images in Kaggle's layout."""

from pathlib import Path

from PIL import Image

NAMES = (
    "train/NORMAL/IM-0115-0001.jpeg",
    "train/NORMAL/NORMAL2-IM-1337-0001.jpeg",
    "train/PNEUMONIA/person12_bacteria_47.jpeg",
    "train/PNEUMONIA/person12_virus_9.jpeg",
    "test/NORMAL/IM-0001-0001.jpeg",
    "test/PNEUMONIA/person1_bacteria_1.jpeg",
    "test/PNEUMONIA/person1_virus_6.jpeg",
)


def write_image(path: Path, shade: int, size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, shade).save(path)
