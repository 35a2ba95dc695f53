"""libseccomp, called through our own binding: the compiler of seccomp filters.

Only the parent calls it, before any namespace is changed. The library is opened by its soname, as the linker finds it.
"""

from __future__ import annotations

import errno
import posix
from _ctypes import FUNCFLAG_CDECL, CFuncPtr, _Pointer, _SimpleCData, dlopen, dlsym
from _struct import pack

from argosy.runtime.errors import ConfigError, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SONAME = "libseccomp.so.2"

_NOW = 2

ACT_OPTIMIZE = 8
"""The attribute `SCMP_FLTATR_CTL_OPTIMIZE`; 2 makes a binary tree of the rules."""


class _Int(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "i"


class _Unsigned(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "I"


class _Address(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "P"


class _UnsignedPointer(_Pointer):  # type: ignore[type-arg]
    _type_ = _Unsigned


class _IntFunction(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL
    _restype_ = _Int


class _UnsignedFunction(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL
    _restype_ = _Unsigned


class _AddressFunction(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL
    _restype_ = _Address


class _VersionFunction(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL
    _restype_ = _UnsignedPointer


_FUNCTIONS: dict[str, type[Any]] = {
    "seccomp_version": _VersionFunction,
    "seccomp_init": _AddressFunction,
    "seccomp_release": _IntFunction,
    "seccomp_arch_native": _UnsignedFunction,
    "seccomp_arch_resolve_name": _UnsignedFunction,
    "seccomp_arch_add": _IntFunction,
    "seccomp_attr_set": _IntFunction,
    "seccomp_syscall_resolve_name": _IntFunction,
    "seccomp_syscall_resolve_name_arch": _IntFunction,
    "seccomp_rule_add_array": _IntFunction,
    "seccomp_export_bpf": _IntFunction,
}


class Library:
    """The loaded library.

    Raises:
        Failure: It is not installed, or is none.
    """

    def __init__(self, soname: str = SONAME) -> None:
        try:
            handle = dlopen(soname, _NOW)
            self._calls = {name: kind(dlsym(handle, name)) for name, kind in _FUNCTIONS.items()}
        except OSError as error:
            raise Failure(
                f"linux.seccomp: {soname} cannot be loaded ({error}); install libseccomp, or take seccomp out of "
                "the configuration"
            ) from None

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function by its name; integers must come as C values."""
        return self._calls[name](*arguments)

    def version(self) -> tuple[int, int, int]:
        """Return the version."""
        numbers = self.call("seccomp_version")
        return numbers[0], numbers[1], numbers[2]

    def native(self) -> int:
        """Return the token of this machine's architecture."""
        token: int = self.call("seccomp_arch_native")
        return token

    def architecture(self, name: str) -> int:
        """Return the token of an architecture by libseccomp's own name; 0 for one it does not know."""
        token: int = self.call("seccomp_arch_resolve_name", name.encode())
        return token

    def number(self, syscall: str, architecture: int | None = None) -> int:
        """Return a system call's number, negative for one that only another architecture has.

        Returns:
            The number of the native architecture, or of the given one; -1 where nobody knows the name.
        """
        number: int
        if architecture is None:
            number = self.call("seccomp_syscall_resolve_name", syscall.encode())
        else:
            name = "seccomp_syscall_resolve_name_arch"
            number = self.call(name, _Unsigned(architecture), syscall.encode())
        return number


class Context:
    """A filter in the making.

    Args:
        library: The library.
        default: What happens to a call without a rule, as the kernel's action value.
    """

    def __init__(self, library: Library, default: int) -> None:
        self.library = library
        self.pointer = _Address(library.call("seccomp_init", _Unsigned(default)))
        if not self.pointer.value:
            raise Failure(f"linux.seccomp: libseccomp refused the default action {default:#x}")

    def release(self) -> None:
        """Give the memory back."""
        self.library.call("seccomp_release", self.pointer)

    def _check(self, result: int, where: str, tolerated: int = 0) -> None:
        if result < 0 and -result != tolerated:
            raise ConfigError(where, f"libseccomp: {posix.strerror(-result).lower()}")

    def add_architecture(self, token: int, where: str) -> None:
        """Let the filter cover another architecture; one it covers already is no error."""
        result = self.library.call("seccomp_arch_add", self.pointer, _Unsigned(token))
        self._check(result, where, errno.EEXIST)

    def optimize(self) -> None:
        """Ask for a binary tree; an older library makes a list, which decides the same."""
        self.library.call("seccomp_attr_set", self.pointer, _Unsigned(ACT_OPTIMIZE), _Unsigned(2))

    def add(
        self, action: int, number: int, conditions: list[tuple[int, int, int, int]], where: str
    ) -> None:
        """Add a rule.

        Args:
            action: The kernel's action value.
            number: The system call's number.
            conditions: Argument index, operator, and the operator's two values; all must hold.
            where: The property to name when it is refused.
        """
        array = b"".join(pack("=IIQQ", *each) for each in conditions)
        result = self.library.call(
            "seccomp_rule_add_array",
            self.pointer,
            _Unsigned(action),
            _Int(number),
            _Unsigned(len(conditions)),
            array or None,
        )
        self._check(result, where, errno.EEXIST)

    def export(self) -> bytes:
        """Return the filter as an array of `struct sock_filter`."""
        fd = posix.memfd_create("seccomp", posix.MFD_CLOEXEC)
        try:
            self._check(
                self.library.call("seccomp_export_bpf", self.pointer, _Int(fd)), "linux.seccomp"
            )
            size = posix.fstat(fd).st_size
            return posix.pread(fd, size, 0)
        finally:
            posix.close(fd)
