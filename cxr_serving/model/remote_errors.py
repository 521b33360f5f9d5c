"""What can be wrong with a bucket; known without its client."""

from cxr_serving.model.bundle import BundleError


class RemoteError(BundleError):
    """The bucket cannot be used; the message names the object and what to do."""


class UnreachableError(RemoteError):
    """The server does not answer, or the connection has ended: trying again may help."""


class ConflictError(RemoteError):
    """Another writer was first; nothing was written."""


class DamagedError(RemoteError):
    """An object is missing or is not what was written."""


class NoConditionsError(RemoteError):
    """The server does not write on conditions as Amazon's does: two writers would not notice."""

    def __init__(self, name: str, fault: str) -> None:
        super().__init__(
            f"{name}: the server {fault}; use one with conditional writes (If-Match, "
            "If-None-Match), such as Amazon's, or a newer version of MinIO or Ceph"
        )
