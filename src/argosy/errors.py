"""Every error argosy raises on purpose, as one tree.

    ArgosyError (.hint: one sentence of advice, which only the command line shows)
    ├── InvalidError (ValueError)      what was given breaks a rule of a specification
    │   ├── InvalidDigestError         400 DIGEST_INVALID
    │   ├── InvalidNameError           400 NAME_INVALID
    │   ├── InvalidReferenceError
    │   ├── InvalidTagError            400 MANIFEST_INVALID
    │   ├── InvalidManifestError       400 MANIFEST_INVALID
    │   ├── InvalidUploadError         400 BLOB_UPLOAD_INVALID
    │   │   └── RangeNotSatisfiableError   416
    │   ├── InvalidLayerError
    │   ├── InvalidLayoutError
    │   ├── InvalidConfigError
    │   └── UsageError                 the call itself makes no sense
    ├── NotFoundError (LookupError)    404
    │   ├── BlobUnknownError, UploadUnknownError, ManifestUnknownError, ManifestBlobUnknownError
    │   ├── NameUnknownError, PlatformUnknownError, ContainerUnknownError
    ├── IntegrityError                 .expected, .actual
    │   ├── DigestMismatchError        400 DIGEST_INVALID
    │   └── SizeMismatchError          400 SIZE_INVALID
    ├── AccessError
    │   ├── UnauthorizedError          401 UNAUTHORIZED
    │   └── DeniedError                403 DENIED
    ├── UnsupportedError               405 UNSUPPORTED
    ├── LimitExceededError             413 (bodies), or any other limit of argosy's own
    ├── ConflictError                  412, somebody else changed it first
    ├── StorageError                   500, the disk or the file system said no
    ├── RegistryError                  the other side of the wire
    │   ├── TransportError             no answer, or not one in HTTP
    │   ├── ResponseError              .method .url .status .errors .body
    │   └── TooManyRequestsError       429 TOOMANYREQUESTS (.retry_after)
    └── ContainerError
        ├── ContainerExistsError, ContainerStatusError, HookError
        └── KernelError (OSError)      .step .syscall

`code` and `status` are class attributes: the registry turns any of these into the specification's JSON in one
function, the client turns a code back into the same class with `error_class`. Messages are lower case, carry
the values, and name the expected before the actual. Context is added with `add_note`, never by wrapping.
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar


class ArgosyError(Exception):
    """The root of the tree.

    Args:
        message: What is wrong: lower case, one line, with the values in it.
        hint: One sentence of advice for a person at a terminal, or None.
    """

    code: ClassVar[str | None] = None
    """The error code of the distribution-spec, or None where it has no word for this."""
    status: ClassVar[int] = 500
    """The HTTP status a registry answers with."""

    def __init__(self, message: str = "", *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class InvalidError(ArgosyError, ValueError):
    """What was given breaks a rule of a specification."""

    status = 400


class InvalidDigestError(InvalidError):
    """A digest that breaks the grammar, or names an algorithm that is not known."""

    code = "DIGEST_INVALID"


class InvalidNameError(InvalidError):
    """A repository name that breaks the distribution-spec's grammar."""

    code = "NAME_INVALID"


class InvalidReferenceError(InvalidError):
    """A reference (`registry/name:tag@digest`) that cannot be read."""


class InvalidTagError(InvalidError):
    """A tag that breaks the distribution-spec's grammar."""

    code = "MANIFEST_INVALID"


class InvalidManifestError(InvalidError):
    """A manifest or index that breaks the image-spec."""

    code = "MANIFEST_INVALID"


class InvalidUploadError(InvalidError):
    """An upload request that breaks the distribution-spec."""

    code = "BLOB_UPLOAD_INVALID"


class RangeNotSatisfiableError(InvalidUploadError):
    """A chunk out of order, or a range outside the blob."""

    status = 416


class InvalidLayerError(InvalidError):
    """A layer that cannot be applied: the message names the entry and the rule."""


class InvalidLayoutError(InvalidError):
    """A layout directory or archive that breaks its format."""


class InvalidConfigError(InvalidError):
    """An image or runtime configuration that breaks its specification."""


class UsageError(InvalidError):
    """A call or command line that makes no sense as it stands."""


class NotFoundError(ArgosyError, LookupError):
    """What was named is not there."""

    status = 404


class BlobUnknownError(NotFoundError):
    """No such blob in this place."""

    code = "BLOB_UNKNOWN"


class UploadUnknownError(NotFoundError):
    """No such upload session, or it has expired."""

    code = "BLOB_UPLOAD_UNKNOWN"


class ManifestUnknownError(NotFoundError):
    """No manifest under this tag or digest."""

    code = "MANIFEST_UNKNOWN"


class ManifestBlobUnknownError(NotFoundError):
    """A manifest refers to content this place does not hold."""

    code = "MANIFEST_BLOB_UNKNOWN"


class NameUnknownError(NotFoundError):
    """No repository of this name."""

    code = "NAME_UNKNOWN"


class PlatformUnknownError(NotFoundError):
    """An index without an entry for the platform asked for."""


class ContainerUnknownError(NotFoundError):
    """No container of this id."""


class IntegrityError(ArgosyError):
    """Content is not what its descriptor says.

    Args:
        message: What was checked; expected and actual are added to it.
        expected: What the descriptor promised.
        actual: What was read.
    """

    status = 400

    def __init__(
        self,
        message: str = "content does not match its descriptor",
        *,
        expected: object = None,
        actual: object = None,
        hint: str | None = None,
    ) -> None:
        if expected is not None:
            message = f"{message}: expected {expected}, got {actual}"
        super().__init__(message, hint=hint)
        self.expected = expected
        self.actual = actual


class DigestMismatchError(IntegrityError):
    """The bytes hash to another digest."""

    code = "DIGEST_INVALID"


class SizeMismatchError(IntegrityError):
    """There are more or fewer bytes than promised."""

    code = "SIZE_INVALID"


class AccessError(ArgosyError):
    """Who asks may not."""


class UnauthorizedError(AccessError):
    """Nobody has said who asks, or what they said is wrong."""

    code = "UNAUTHORIZED"
    status = 401


class DeniedError(AccessError):
    """Who asks is known, and may not."""

    code = "DENIED"
    status = 403


class UnsupportedError(ArgosyError):
    """The place, platform or peer cannot do this."""

    code = "UNSUPPORTED"
    status = 405


class LimitExceededError(ArgosyError):
    """More than the limit: bytes, depth, entries, time."""

    code = "SIZE_INVALID"
    status = 413


class ConflictError(ArgosyError):
    """Somebody else changed it first (a precondition did not hold)."""

    code = "DENIED"
    status = 412


class StorageError(ArgosyError):
    """The disk, file system or database below a place said no: full, read-only, gone."""


class RegistryError(ArgosyError):
    """The registry on the other side of the wire failed, or answered with an error of no better class."""

    status = 502


class TransportError(RegistryError):
    """No answer: connection, TLS, timeout, or bytes that are not HTTP."""


class ResponseError(RegistryError):
    """An answer that is an error, and none that the specification has a better word for.

    Args:
        message: What was attempted and what came back, in one line.
        method: The HTTP method.
        url: The URL, with credentials and signatures redacted.
        http_status: The status code that was received.
        errors: The specification's error entries, as received (`code`, `message`, `detail`).
        body: What was received when it was not the specification's JSON, at most 64 KiB.
        retry_after: Seconds to wait that the registry asked for, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        method: str = "",
        url: str = "",
        http_status: int = 0,
        errors: tuple[dict[str, object], ...] = (),
        body: bytes = b"",
        retry_after: float | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.method = method
        self.url = url
        self.http_status = http_status
        self.errors = errors
        self.body = body[: 64 * 1024]
        self.retry_after = retry_after


class TooManyRequestsError(RegistryError):
    """The registry limits the rate.

    Args:
        message: What was attempted.
        retry_after: Seconds to wait that the registry asked for, or None.
    """

    code = "TOOMANYREQUESTS"
    status = 429

    def __init__(
        self, message: str = "", *, retry_after: float | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class ContainerError(ArgosyError):
    """A container could not be made, changed or asked."""


class ContainerExistsError(ContainerError):
    """A container of this id exists already."""


class ContainerStatusError(ContainerError):
    """The container is in the wrong status for this operation."""


class HookError(ContainerError):
    """A hook failed or took too long."""


class KernelError(ContainerError, OSError):
    """A system call failed while a container was set up.

    Args:
        message: What was attempted.
        step: The step of the plan.
        syscall: The system call's name.
        errno: The error number.
    """

    def __init__(
        self,
        message: str,
        *,
        step: str = "",
        syscall: str = "",
        errno: int | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.step = step
        self.syscall = syscall
        self.errno = errno

    def __reduce__(self) -> tuple[object, ...]:
        """For `copy` and `pickle`, to which the number of an `OSError` is no attribute like the others."""
        return type(self), self.args, {**self.__dict__, "errno": self.errno}


_BY_CODE: dict[str, type[ArgosyError]] = {
    "BLOB_UNKNOWN": BlobUnknownError,
    "BLOB_UPLOAD_INVALID": InvalidUploadError,
    "BLOB_UPLOAD_UNKNOWN": UploadUnknownError,
    "DENIED": DeniedError,
    "DIGEST_INVALID": InvalidDigestError,
    "MANIFEST_BLOB_UNKNOWN": ManifestBlobUnknownError,
    "MANIFEST_INVALID": InvalidManifestError,
    "MANIFEST_UNKNOWN": ManifestUnknownError,
    "NAME_INVALID": InvalidNameError,
    "NAME_UNKNOWN": NameUnknownError,
    "SIZE_INVALID": SizeMismatchError,
    "TOOMANYREQUESTS": TooManyRequestsError,
    "UNAUTHORIZED": UnauthorizedError,
    "UNSUPPORTED": UnsupportedError,
}


def error_class(code: str) -> type[ArgosyError] | None:
    """The class that stands for an error code of the distribution-spec, or None for a code it does not list.

    >>> error_class("BLOB_UNKNOWN").__name__
    'BlobUnknownError'
    """
    return _BY_CODE.get(code)


_UNREAD: dict[int | None, type[ArgosyError]] = {
    errno.ENOENT: NotFoundError,
    errno.ENOTDIR: NotFoundError,
    errno.EACCES: DeniedError,
    errno.EPERM: DeniedError,
}


def unread(path: str, exc: OSError) -> ArgosyError:
    """The error for a file or directory of this machine that somebody named, and that cannot be read.

    >>> unread("app.tar", FileNotFoundError(2, "No such file or directory"))
    NotFoundError('app.tar: no such file or directory')
    """
    reason = (exc.strerror or type(exc).__name__).lower()
    return _UNREAD.get(exc.errno, StorageError)(f"{path}: {reason}")
