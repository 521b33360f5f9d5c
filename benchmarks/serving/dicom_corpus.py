"""Compares how DICOM files of a folder are read with how dcmtk shows them.

    python -m benchmarks.serving.dicom_corpus FOLDER

Each file that says what modality it has is taken for CR, so that images of any modality serve. Of
dcmtk (`apt-get install dcmtk`) the first look-up table is used, else the first window, else the
range of the pixels, which is what the service does. It has no JPEG 2000, which GDCM decompresses
for it. A grey level may differ by one: dcmtk cuts fractions off, and the service rounds.
"""

import argparse
import re
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from PIL import Image

from cxr_serving.images.dicom import DicomReader, is_dicom
from cxr_serving.model.preprocessing import MAX_PIXELS, ImageError

_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_PROGRAMS = {
    "1.2.840.10008.1.2.4.80": "dcml2pnm",
    "1.2.840.10008.1.2.4.81": "dcml2pnm",
}
# Modality, in explicit and in implicit form.
_MODALITY = re.compile(rb"\x08\x00\x60\x00(?:CS(.)\x00|(.)\x00\x00\x00)", re.DOTALL)


def main() -> None:
    """Print which files differ, by reason, and count them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    reader = DicomReader(MAX_PIXELS, 60, 2**30)
    outcomes: dict[str, list[str]] = defaultdict(list)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = as_cr(path.read_bytes())
        if data is not None:
            outcomes[compare(data, reader)].append(str(path.relative_to(folder)))
    reader.close()
    for outcome, names in sorted(outcomes.items()):
        print(f"{len(names):5} {outcome}")
        for name in names if not outcome.startswith(("both", "the same")) else ():
            print(f"        {name}")


def as_cr(data: bytes) -> bytes | None:
    """A file with CR as its modality; None where it is no DICOM file or says no modality."""
    said = _MODALITY.search(data)
    if said is None or not is_dicom(data):
        return None
    [length] = said[1] or said[2]
    return data[: said.end()] + b"CR".ljust(length)[:length] + data[said.end() + length :]


def compare(data: bytes, reader: DicomReader) -> str:
    """In what the service and dcmtk agree or differ."""
    shown = by_dcmtk(data)
    try:
        read = reader.read(data)
    except ImageError as error:
        return f"both reject: {error}" if shown is None else f"only dcmtk shows: {error}"
    if shown is None:
        return "only the service reads"
    if shown.shape != read.shape:
        return "another size"
    away = np.abs(shown.astype(int) - read)
    return "the same within 1" if away.max() <= 1 else f"differs by up to {away.max():3}"


def by_dcmtk(data: bytes) -> npt.NDArray[np.uint8] | None:
    """Grey levels [H, W] of the first frame, None where dcmtk shows none, or colours."""
    with tempfile.TemporaryDirectory() as directory:
        source, target = Path(directory) / "image.dcm", Path(directory) / "image.png"
        source.write_bytes(data)
        syntax = ""
        try:
            header = pydicom.dcmread(source, force=True)
            syntax = str(header.file_meta.get("TransferSyntaxUID", ""))
            if syntax in _JPEG_2000:
                header.decompress(decoding_plugin="gdcm")
                header.save_as(source)
        except Exception as error:  # noqa: BLE001 - whatever pydicom thinks of a file
            print(f"pydicom: {error}".splitlines()[0][:160])
        for window in (("+Wl", "1"), ("+Wi", "1"), ("+Wm",)):
            ended = subprocess.run(
                [_PROGRAMS.get(syntax, "dcmj2pnm"), "+on", "-O", *window, source, target],
                capture_output=True,
                check=False,
            )
            if b"cannot select VOI" not in ended.stderr:
                break
        if ended.returncode or not target.exists():
            return None
        with Image.open(target) as image:
            return np.array(image) if image.mode == "L" else None


if __name__ == "__main__":
    main()
