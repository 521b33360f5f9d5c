"""What a key file may hold, and the errors for everything else."""

from pathlib import Path

import pytest

from cxr_serving.http.keys import Keys, KeysError

A, B = "aaaaaaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbbbbbb"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def owners(file: Path, *keys: str) -> list[str | None]:
    read = Keys(file)
    return [read.owner(key) for key in keys]


def test_number_sign_in_a_key_is_a_part_of_it(file: Path) -> None:
    file.write_text(f"# {B} is gone\n  # ward-2 {B}\nward-3 {A}#{B}\n#ward-4 {B}\n")
    assert owners(file, f"{A}#{B}", A, f"{A}#", B, "") == ["ward-3", None, None, None, None]


@pytest.mark.parametrize(
    "content",
    [
        f"\ufeffward-3 {A}\nward-4 {B}".encode(),
        f"ward-3 {A}\r\n\r\nward-4 {B}\r\n".encode(),
        f"ward-3 {A}\rward-4 {B}\r".encode(),
        f"  ward-3\t{A}  \n\n \t \nward-4   {B} \n\n".encode(),
    ],
    ids=["byte order mark", "CRLF", "CR", "blanks"],
)
def test_encodings_and_line_ends_of_editors_are_accepted(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert owners(file, A, B, A + "\r", "\ufeff" + A) == ["ward-3", "ward-4", None, None]


def test_old_key_and_new_one_of_a_name_are_valid_together(file: Path) -> None:
    file.write_text(f"ward-3 {A}\nward-3 {B}\n")
    assert owners(file, A, B) == ["ward-3", "ward-3"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (B, "line 3: 1 word, "),
        (f"ward 4 {B}", "line 3: 3 words, "),
        (f"ward-4 {B} # of the ward", "comment needs a line of its own"),
        (f"ward-4 {B[:15]}", "fewer than 16 characters"),
        (f"ward-4 {A}", "line 3: the key is that of line 2"),
        (f"ward-4 {B}é", "HTTP header cannot carry"),
        (f"ward-4 {B}\0", "HTTP header cannot carry"),
        ("ward-4 $(openssl rand -hex 32)", "line 3: 5 words"),
    ],
)
def test_line_that_is_not_a_name_and_a_key_is_named_without_the_key(
    file: Path, line: str, reason: str
) -> None:
    file.write_text(f"# keys\nward-3 {A}\n{line}\n")
    with pytest.raises(KeysError) as caught:
        Keys(file)
    message = str(caught.value)
    assert str(file) in message
    assert reason in message
    assert A[:15] not in message
    assert B[:15] not in message


@pytest.mark.parametrize("content", [b"", b"# none\n\n", f"ward-3 {A}ü".encode("latin-1")])
def test_file_without_keys_or_of_another_encoding_is_rejected(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(KeysError, match=r"holds no key|is not UTF-8 text: save it as UTF-8"):
        Keys(file)
    file.unlink()
    with pytest.raises(KeysError, match="cannot be read"):
        Keys(file)
