import io
import tarfile
from pathlib import Path

import bundles
import pytest
import s3

from cxr_serving.model import store
from cxr_serving.model.remote import Bucket
from cxr_serving.model.remote_errors import ConflictError, DamagedError
from cxr_serving.model.replica import receive, send


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside-of-it", "link", "pipe"])
def test_archive_writes_nowhere_but_in_its_place(tmp_path: Path, bucket: Bucket, name: str) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo(name)
        if name == "link":
            member.type, member.linkname = tarfile.SYMTYPE, "../../../outside"
        elif name == "pipe":
            member.type = tarfile.FIFOTYPE
        tar.addfile(member)
    bucket.write("version.tar", archive.getvalue(), seen=None)
    with pytest.raises(DamagedError, match=r"cxr/version.tar cannot be used"):
        receive(bucket, "version.tar", tmp_path / "version", store.verify)
    assert list(tmp_path.iterdir()) == []
    assert not Path("/tmp/outside-of-it").exists()


def test_directory_arrives_as_it_was_sent_and_names_no_user(
    tmp_path: Path, bucket: Bucket, storage: s3.Storage
) -> None:
    record = bundles.record()
    sent = store.publish(tmp_path / "models", record, bundles.write_files)
    etag = send(bucket, "version.tar", sent, None)
    assert receive(bucket, "version.tar", tmp_path / "copy", store.verify) == etag
    assert store.verify(tmp_path / "copy") == store.verify(sent)
    with tarfile.open(fileobj=io.BytesIO(storage.content("cxr/version.tar"))) as tar:
        assert {(member.uname, member.uid) for member in tar} == {("", 0)}
    (tmp_path / "copy" / "more").write_text("")
    with pytest.raises(ConflictError):
        send(bucket, "version.tar", tmp_path / "copy", "another")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "models"]
