"""A small stand-in of Xet storage, where hubs keep large files as chunks.

hf_xet sends chunks bundled into xorbs and then a shard, which tells of which chunks each file
consists. The formats: https://huggingface.co/docs/xet
"""

import hashlib
import re
import struct
from typing import Any

import numpy as np
import pyarrow as pa

_ENTRY = struct.Struct("<32s4I")
_VERIFIED, _WITH_SHA256 = 1 << 31, 1 << 30


class Storage:
    """Takes xorbs and shards and puts the files together again.

    Attributes:
        files: by sha256, shared with the hub.
        uploads: the name of every xorb that was sent, in order.
    """

    def __init__(self, files: dict[str, bytes], uploads: list[str]) -> None:
        self.files = files
        self.uploads = uploads
        self._xorbs: dict[str, list[bytes]] = {}

    def answer(self, path: str, body: bytes) -> tuple[int, Any]:
        if match := re.fullmatch(r"/v1/xorbs/default/(\w+)", path):
            self._xorbs[match[1]] = _chunks(body)
            self.uploads.append(match[1])
            return 200, {"was_inserted": True}
        if path == "/v1/shards":
            return self._register(body)
        # Chunks that nobody has sent before, and newer ways that hf_xet tries first.
        return 404, {"error": "not found"}

    def _register(self, shard: bytes) -> tuple[int, Any]:
        entries = _ENTRY.iter_unpack(shard[_ENTRY.size : len(shard) // _ENTRY.size * _ENTRY.size])
        for head, flags, terms, *_ in entries:
            if head == b"\xff" * 32:  # the end of the files
                break
            content = b""
            for xorb, _, _, start, end in [next(entries) for _ in range(terms)]:
                if _name(xorb) not in self._xorbs:
                    return 400, {"error": "a chunk is missing"}
                content += b"".join(self._xorbs[_name(xorb)][start:end])
            if flags & _VERIFIED:
                for _ in range(terms):
                    next(entries)
            sha256 = hashlib.sha256(content).hexdigest()
            if flags & _WITH_SHA256 and _name(next(entries)[0]) != sha256:
                return 400, {"error": "a file is not what its sha256 says"}
            self.files[sha256] = content
        return 200, {"result": 1}


def _name(digest: bytes) -> str:
    """Xet writes a hash as four little-endian numbers."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", digest))


def _chunks(xorb: bytes) -> list[bytes]:
    chunks = []
    while xorb:
        packed = int.from_bytes(xorb[1:4], "little")
        scheme, size = xorb[4], int.from_bytes(xorb[5:8], "little")
        data, xorb = xorb[8 : 8 + packed], xorb[8 + packed :]
        if scheme:
            data = pa.decompress(data, size, codec="lz4", asbytes=True)
        if scheme == 2:  # the first byte of every four, then the second of every four, ...
            whole, start = np.empty(size, np.uint8), 0
            for offset in range(4):
                part = whole[offset::4]
                part[:] = np.frombuffer(data, np.uint8, len(part), start)
                start += len(part)
            data = whole.tobytes()
        chunks.append(data)
    return chunks
