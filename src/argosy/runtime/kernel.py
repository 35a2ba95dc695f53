"""The one door to the kernel: every system call Python has no function for, one method a call.

Rules of this file: it imports only `posix`, `_ctypes` and `_struct`; it calls ``syscall(2)`` through one pointer, reads
errno at once, and raises `KernelError` naming the call. The kernel-facing names and the order of arguments are those of
the manual pages; flags are the constants below. Paths are bytes; descriptors are integers; nothing here closes one.

Calls that `posix` already has (``open``, ``mknod`` …) are not repeated here.
"""

from __future__ import annotations

import posix
from _ctypes import (
    Array,
    CFuncPtr,
    _SimpleCData,
    addressof,
    dlopen,
    dlsym,
    get_errno,
    sizeof,
)
from _struct import pack, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

AT_FDCWD: Final = -100
AT_EMPTY_PATH: Final = 0x1000
AT_RECURSIVE: Final = 0x8000

CLONE_NEWTIME: Final = 0x80
CLONE_NEWNS: Final = 0x20000
CLONE_PARENT: Final = 0x8000
CLONE_PIDFD: Final = 0x1000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000
CLONE_INTO_CGROUP: Final = 0x200000000

MS_BIND: Final = 4096
MS_MOVE: Final = 8192
MS_REC: Final = 16384
MS_UNBINDABLE: Final = 1 << 17
MS_PRIVATE: Final = 1 << 18
MS_SLAVE: Final = 1 << 19
MS_SHARED: Final = 1 << 20
MNT_DETACH: Final = 2

MOUNT_ATTR_RDONLY: Final = 0x1
MOUNT_ATTR_NOSUID: Final = 0x2
MOUNT_ATTR_NODEV: Final = 0x4
MOUNT_ATTR_NOEXEC: Final = 0x8
MOUNT_ATTR__ATIME: Final = 0x70
MOUNT_ATTR_RELATIME: Final = 0x0
MOUNT_ATTR_NOATIME: Final = 0x10
MOUNT_ATTR_STRICTATIME: Final = 0x20
MOUNT_ATTR_NODIRATIME: Final = 0x80
MOUNT_ATTR_IDMAP: Final = 0x100000
MOUNT_ATTR_NOSYMFOLLOW: Final = 0x200000

OPEN_TREE_CLONE: Final = 1
OPEN_TREE_CLOEXEC: Final = 0o2000000
MOVE_MOUNT_F_EMPTY_PATH: Final = 0x4
MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40
FSOPEN_CLOEXEC: Final = 1
FSMOUNT_CLOEXEC: Final = 1
FSCONFIG_SET_FLAG: Final = 0
FSCONFIG_SET_STRING: Final = 1
FSCONFIG_CMD_CREATE: Final = 6

RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
RESOLVE_IN_ROOT: Final = 0x10

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_KEEPCAPS: Final = 8
PR_CAPBSET_READ: Final = 23
PR_CAPBSET_DROP: Final = 24
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_RAISE: Final = 2
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

KEYCTL_JOIN_SESSION_KEYRING: Final = 1
KEYCTL_SETPERM: Final = 5
KEYCTL_DESCRIBE: Final = 6

CGROUP2_SUPER_MAGIC: Final = 0x63677270
DEVPTS_SUPER_MAGIC: Final = 0x1CD1
PROC_SUPER_MAGIC: Final = 0x9FA0

# fmt: off
_NAMES = (
    "mount", "umount2", "pivot_root", "unshare", "setns", "prctl", "capget", "capset", "keyctl", "seccomp", "bpf",
    "sched_setattr", "ioprio_set", "set_mempolicy", "personality", "sethostname", "setdomainname", "fstatfs",
    "prlimit64", "execve",
)
_GENERIC = (40, 39, 41, 97, 268, 167, 90, 91, 219, 277, 280, 274, 30, 237, 92, 161, 162, 44, 261, 221)
_NUMBERS: dict[str, tuple[int, ...]] = {
    "x86_64": (165, 166, 155, 272, 308, 157, 125, 126, 250, 317, 321, 314, 251, 238, 135, 170, 171, 138, 302, 59),
    "aarch64": _GENERIC,
    "riscv64": _GENERIC,
    "loongarch64": _GENERIC,
    "s390x": (21, 52, 217, 303, 339, 172, 184, 185, 280, 348, 351, 345, 282, 270, 136, 74, 121, 100, 334, 11),
    "ppc64le": (21, 52, 203, 282, 350, 171, 183, 184, 271, 358, 361, 355, 273, 261, 136, 74, 121, 100, 325, 11),
    "armv7l": (21, 52, 218, 337, 375, 172, 184, 185, 311, 383, 386, 380, 314, 321, 136, 74, 121, 267, 369, 11),
}
# From 424 on the numbers are one table for every architecture above.
_COMMON = {
    "pidfd_send_signal": 424, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
    "pidfd_open": 434, "clone3": 435, "close_range": 436, "openat2": 437, "pidfd_getfd": 438, "mount_setattr": 442,
}
# fmt: on


def numbers(machine: str) -> dict[str, int]:
    """System call numbers of an architecture.

    Args:
        machine: as ``uname -m`` prints it.

    Raises:
        KernelError: ENOSYS for an architecture without a table.
    """
    table = _NUMBERS.get("armv7l" if machine.startswith("armv") else machine)
    if table is None:
        raise KernelError(38, f"no system call table for the architecture {machine}", "syscall")
    return {**dict(zip(_NAMES, table, strict=True)), **_COMMON}


class KernelError(OSError):
    """A system call failed.

    Attributes:
        syscall: name of the call.
    """

    def __init__(self, errno: int, strerror: str, syscall: str) -> None:
        super().__init__(errno, strerror)
        self.syscall = syscall

    def __str__(self) -> str:
        return f"{self.syscall}: {self.strerror}"


class _Long(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "l"


class _Char(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "c"


class _Function(CFuncPtr):
    _flags_ = 1 | 4 | 8  # CDECL, keep the GIL (there are no threads), keep errno
    _restype_ = _Long


_buffer_types: dict[int, Any] = {}


def buffer(data: bytearray) -> Any:
    """A C array over the memory of ``data``: what the kernel writes is seen in ``data``."""
    length = len(data)
    kind = _buffer_types.get(length)
    if kind is None:
        kind = _buffer_types[length] = type(
            "_Buffer", (Array,), {"_type_": _Char, "_length_": length}
        )
    return kind.from_buffer(data)  # type: ignore[union-attr]


def address(data: Any) -> int:
    """The address of a `buffer`; the caller keeps the buffer alive."""
    return addressof(data)


_LIBC = dlopen("", 2)
_SYSCALL = _Function(dlsym(_LIBC, "syscall"))
_BEFORE_FORK = _Function(dlsym(_LIBC, "PyOS_BeforeFork"))
_AFTER_FORK_PARENT = _Function(dlsym(_LIBC, "PyOS_AfterFork_Parent"))
_AFTER_FORK_CHILD = _Function(dlsym(_LIBC, "PyOS_AfterFork_Child"))


def _argument(value: Any) -> Any:
    return _Long(value) if type(value) is int else value


class LinuxKernel:
    """System calls of the running kernel.

    Every method returns what the call returns and raises `KernelError` where it fails. Arguments of type bytes are
    passed as pointers to NUL-terminated memory; None is NULL.
    """

    def __init__(self, machine: str = "") -> None:
        self.machine = machine or posix.uname().machine
        self._numbers = numbers(self.machine)

    def call(self, name: str, *arguments: Any) -> int:
        """Any call of the table by its name."""
        result: int = _SYSCALL(
            _Long(self._numbers[name]), *[_argument(value) for value in arguments]
        )
        if result < 0:
            errno = get_errno()
            raise KernelError(errno, posix.strerror(errno), name)
        return result

    def mount(
        self,
        source: bytes | None,
        target: bytes,
        fstype: bytes | None,
        flags: int,
        data: bytes | None,
    ) -> None:
        """mount(2)."""
        self.call("mount", source, target, fstype, flags, data)

    def umount(self, target: bytes, flags: int) -> None:
        """umount2(2)."""
        self.call("umount2", target, flags)

    def pivot_root(self, new_root: bytes, put_old: bytes) -> None:
        """pivot_root(2)."""
        self.call("pivot_root", new_root, put_old)

    def unshare(self, flags: int) -> None:
        """unshare(2)."""
        self.call("unshare", flags)

    def setns(self, fd: int, flags: int) -> None:
        """setns(2): ``fd`` of a namespace file, or a pidfd with several flags (5.8)."""
        self.call("setns", fd, flags)

    def clone3(self, flags: int, cgroup_fd: int | None = None) -> tuple[int, int]:
        """clone3(2) as fork: returns (pid, pidfd) in the parent, (0, -1) in the child.

        The interpreter's own fork hooks run, so locks and the cached process id are right in the child. With
        CLONE_PARENT the child's exit signal is its new parent's business (the kernel demands 0 here).
        """
        pidfd = bytearray(8)
        held = buffer(pidfd)
        exit_signal = 0 if flags & CLONE_PARENT else 17
        if cgroup_fd is not None:
            flags |= CLONE_INTO_CGROUP
        arguments = pack(
            "11Q",
            flags | CLONE_PIDFD,
            address(held),
            0,
            0,
            exit_signal,
            0,
            0,
            0,
            0,
            0,
            cgroup_fd or 0,
        )
        _BEFORE_FORK()
        try:
            pid = self.call("clone3", arguments, len(arguments))
        except KernelError:
            _AFTER_FORK_PARENT()
            raise
        if pid == 0:
            _AFTER_FORK_CHILD()
            return 0, -1
        _AFTER_FORK_PARENT()
        return pid, int.from_bytes(pidfd[:4], "little" if pack("=H", 1) == b"\1\0" else "big")

    def prctl(self, option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
        """prctl(2)."""
        return self.call("prctl", option, arg2, arg3, arg4, arg5)

    def capset(self, effective: int, permitted: int, inheritable: int) -> None:
        """capset(2), version 3, of the calling thread; the sets are bit masks (bit n is capability n)."""
        low, high = 0xFFFFFFFF, 32
        sets = (effective, permitted, inheritable)
        data = pack("6I", *[part & low for part in sets], *[part >> high for part in sets])
        self.call("capset", pack("Ii", 0x20080522, 0), data)

    def capget(self) -> tuple[int, int, int]:
        """capget(2) of the calling thread: effective, permitted, inheritable as bit masks."""
        data = bytearray(24)
        self.call("capget", pack("Ii", 0x20080522, 0), buffer(data))
        low = unpack("6I", data)
        return (low[0] | low[3] << 32, low[1] | low[4] << 32, low[2] | low[5] << 32)

    def keyctl(self, operation: int, *arguments: Any) -> int:
        """keyctl(2)."""
        return self.call("keyctl", operation, *arguments)

    def openat2(self, dirfd: int, path: bytes, flags: int, resolve: int, mode: int = 0) -> int:
        """openat2(2): flags as open(2) (add O_CLOEXEC yourself), resolve of RESOLVE_*."""
        how = pack("3Q", flags, mode, resolve)
        return self.call("openat2", dirfd, path, how, len(how))

    def open_tree(self, dirfd: int, path: bytes, flags: int) -> int:
        """open_tree(2)."""
        return self.call("open_tree", dirfd, path, flags)

    def move_mount(
        self, from_fd: int, from_path: bytes, to_fd: int, to_path: bytes, flags: int
    ) -> None:
        """move_mount(2)."""
        self.call("move_mount", from_fd, from_path, to_fd, to_path, flags)

    def fsopen(self, fstype: bytes, flags: int = FSOPEN_CLOEXEC) -> int:
        """fsopen(2)."""
        return self.call("fsopen", fstype, flags)

    def fsconfig(
        self, fd: int, command: int, key: bytes | None, value: bytes | None, aux: int = 0
    ) -> None:
        """fsconfig(2)."""
        self.call("fsconfig", fd, command, key, value, aux)

    def fsmount(self, fd: int, attributes: int = 0) -> int:
        """fsmount(2): a detached mount, close-on-exec."""
        return self.call("fsmount", fd, FSMOUNT_CLOEXEC, attributes)

    def mount_setattr(
        self,
        fd: int,
        set_: int,
        clear: int,
        *,
        recursive: bool = False,
        propagation: int = 0,
        userns_fd: int = 0,
    ) -> None:
        """mount_setattr(2) on the mount ``fd`` stands on."""
        attributes = pack("4Q", set_, clear, propagation, userns_fd)
        self.call(
            "mount_setattr",
            fd,
            b"",
            AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0),
            attributes,
            len(attributes),
        )

    def close_range(self, first: int, last: int, flags: int = 0) -> None:
        """close_range(2)."""
        self.call("close_range", first, last, flags)

    def seccomp(self, operation: int, flags: int, program: bytes | None) -> int:
        """seccomp(2); ``program`` is an array of ``struct sock_filter``."""
        if program is None:
            return self.call("seccomp", operation, flags, None)
        held = buffer(bytearray(program))
        return self.call(
            "seccomp", operation, flags, pack("HxxxxxxP", len(program) // 8, address(held))
        )

    def bpf(self, command: int, attributes: bytearray) -> int:
        """bpf(2); the kernel may write into ``attributes`` (``union bpf_attr``)."""
        return self.call("bpf", command, buffer(attributes), len(attributes))

    def pidfd_open(self, pid: int) -> int:
        """pidfd_open(2)."""
        return self.call("pidfd_open", pid, 0)

    def pidfd_getfd(self, pidfd: int, fd: int) -> int:
        """pidfd_getfd(2): a duplicate of another process's descriptor."""
        return self.call("pidfd_getfd", pidfd, fd, 0)

    def pidfd_send_signal(self, pidfd: int, signal: int) -> None:
        """pidfd_send_signal(2)."""
        self.call("pidfd_send_signal", pidfd, signal, None, 0)

    def sched_setattr(
        self,
        pid: int,
        policy: int,
        flags: int,
        nice: int,
        priority: int,
        runtime: int,
        deadline: int,
        period: int,
    ) -> None:
        """sched_setattr(2); times in nanoseconds."""
        attributes = pack("=IIQiIQQQ", 48, policy, flags, nice, priority, runtime, deadline, period)
        self.call("sched_setattr", pid, attributes, 0)

    def ioprio_set(self, which: int, who: int, ioprio: int) -> None:
        """ioprio_set(2)."""
        self.call("ioprio_set", which, who, ioprio)

    def set_mempolicy(self, mode: int, nodemask: int) -> None:
        """set_mempolicy(2); ``nodemask`` has bit n for node n, 0 passes no mask."""
        if not nodemask:
            self.call("set_mempolicy", mode, None, 0)
            return
        longs = nodemask.bit_length() // 64 + 1
        self.call("set_mempolicy", mode, nodemask.to_bytes(longs * 8, "little"), longs * 64)

    def personality(self, persona: int) -> int:
        """personality(2); returns the previous one."""
        return self.call("personality", persona)

    def sethostname(self, name: bytes) -> None:
        """sethostname(2)."""
        self.call("sethostname", name, len(name))

    def setdomainname(self, name: bytes) -> None:
        """setdomainname(2)."""
        self.call("setdomainname", name, len(name))

    def filesystem(self, fd: int) -> int:
        """fstatfs(2): the file system's magic number (``f_type``)."""
        data = bytearray(512)
        if self.machine.startswith("armv"):
            self.call("fstatfs", fd, 88, buffer(data))
        else:
            self.call("fstatfs", fd, buffer(data))
        width = sizeof(_Long) if self.machine != "s390x" else 4
        return (
            int.from_bytes(data[:width], "big" if self.machine == "s390x" else "little")
            & 0xFFFFFFFF
        )

    def prepare_execve(
        self, path: bytes, arguments: list[bytes], environment: list[bytes]
    ) -> tuple[Any, ...]:
        """Everything execve(2) needs, allocated: after a seccomp filter is loaded nothing may allocate any more."""
        held = [
            [buffer(bytearray(text + b"\0")) for text in texts]
            for texts in (arguments, environment)
        ]
        vectors = [
            buffer(bytearray(pack(f"{len(texts) + 1}P", *map(address, texts), 0))) for texts in held
        ]
        return (_Long(self._numbers["execve"]), path, *vectors, held)

    def execve(self, prepared: tuple[Any, ...]) -> None:
        """execve(2) of what `prepare_execve` made; returns only by raising."""
        _SYSCALL(*prepared[:4])
        errno = get_errno()
        raise KernelError(errno, posix.strerror(errno), "exec")

    def prlimit(self, pid: int, resource: int, soft: int, hard: int) -> None:
        """prlimit64(2): set soft and hard limit of another process (0 is the caller)."""
        self.call("prlimit64", pid, resource, pack("2Q", soft, hard), None)
