import os
from pathlib import Path

import pytest

from deploy.images import contents

MAY_BE_THERE = (
    "usr/bin/python3",
    "usr/bin/ld.so",
    "usr/bin/as-is",
    "opt/venv/bin/pip",
    "opt/venv/lib/python3.12/site-packages/somewhere/as.py",
    "home/cxr/.profile",
    "usr/share/doc/app/.env.example",
    "usr/lib/gcc/x86_64-linux-gnu/14/libgcc_s.so.1",
    "usr/bin/c_rehash",
    "etc/ssl/certs/ca-certificates.crt",
    "usr/share/keyrings/debian-archive-keyring.gpg",
    "opt/venv/lib/python3.12/site-packages/certifi/cacert.pem",
    "opt/venv/lib/python3.12/site-packages/dagster/_core/secrets/env_file.py",
    "opt/venv/lib/python3.12/site-packages/tornado/test/test.key",
    "usr/local/lib/python3.12/secrets.py",
)


def write(root: Path, place: str, mode: int = 0o755) -> None:
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"0123456789")
    path.chmod(mode)


@pytest.mark.parametrize(
    ("place", "mode", "reason"),
    [
        ("usr/bin/su", 0o4755, "changes the user who runs it"),
        ("usr/bin/wall", 0o2755, "changes the user who runs it"),
        ("usr/bin/x86_64-linux-gnu-gcc-14", 0o755, "compiles programs"),
        ("usr/bin/cc", 0o755, "compiles programs"),
        ("usr/bin/clang++-19", 0o755, "compiles programs"),
        ("usr/bin/ld.bfd", 0o755, "compiles programs"),
        ("usr/local/cuda/bin/nvcc", 0o755, "compiles programs"),
        ("usr/bin/c99-gcc", 0o755, "compiles programs"),
        ("usr/bin/c89", 0o755, "compiles programs"),
        ("usr/bin/gfortran-14", 0o755, "compiles programs"),
        ("usr/bin/x86_64-linux-gnu-gfortran", 0o755, "compiles programs"),
        ("usr/libexec/gcc/x86_64-linux-gnu/14/cc1", 0o755, "compiles programs"),
        ("usr/lib/gcc/x86_64-linux-gnu/12/cc1plus", 0o755, "compiles programs"),
        ("home/cxr/.netrc", 0o600, "holds a secret"),
        ("opt/app/.env", 0o600, "holds a secret"),
        ("root/.ssh/id_ed25519", 0o600, "holds a secret"),
        ("etc/pip.conf", 0o644, "holds a secret"),
        ("opt/dagster/postgres_password", 0o644, "holds a secret"),
        ("opt/app/.env.production", 0o600, "holds a secret"),
        ("root/.npmrc", 0o600, "holds a secret"),
        ("etc/ssl/private/server.key", 0o600, "holds a secret"),
        ("etc/ssl/private/privkey.pem", 0o600, "holds a secret"),
        ("opt/app/keystore.p12", 0o600, "holds a secret"),
        ("root/.config/gcloud/access_tokens.db", 0o600, "holds a secret"),
        ("srv/application_default_credentials.json", 0o600, "holds a secret"),
        ("opt/dagster/secrets/pipeline/receivers", 0o644, "holds a secret"),
        ("secrets/hf", 0o644, "holds a secret"),
        ("home/cxr/.cache/huggingface/stored_tokens", 0o600, "holds a secret"),
    ],
)
def test_what_an_image_must_not_hold_is_found(
    place: str, mode: int, reason: str, tmp_path: Path
) -> None:
    for allowed in MAY_BE_THERE:
        write(tmp_path, allowed)
    write(tmp_path, place, mode)
    assert list(contents.faults(tmp_path)) == [f"/{place}: {reason}"]


def test_a_link_to_a_compiler_is_found_wherever_it_leads(tmp_path: Path) -> None:
    link = tmp_path / "usr/bin/c++"
    link.parent.mkdir(parents=True)
    link.symlink_to("/etc/alternatives/c++")
    assert list(contents.faults(tmp_path)) == ["/usr/bin/c++: compiles programs"]


def test_files_count_once_however_many_names_they_have(tmp_path: Path) -> None:
    for place in ("a", "b/c"):
        write(tmp_path, place)
    os.link(tmp_path / "a", tmp_path / "b" / "d")
    assert contents.size(tmp_path) == 20
