"""Device rules of cgroup version 2: a BPF program that the kernel asks about every open and mknod.

The program is assembled here from a `devices.Policy`, loaded, and attached so that it runs beside those of others
(systemd's): all must agree. An earlier program of ours is replaced in one step, never leaving a moment without rules.
"""

from __future__ import annotations

import errno
import posix
from _struct import pack, unpack_from

from argosy.runtime.cgroups.devices import ALL, ANY, Policy
from argosy.runtime.errors import Failure
from argosy.runtime.kernel import KernelError, LinuxKernel, address, buffer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAME = b"argosy_devices\0\0"
"""The program's name in the kernel, by which ours is told from others'."""

_BLOCK, _CHAR = 1, 2
_TYPES = {"b": _BLOCK, "c": _CHAR}

_PROG_LOAD, _ATTACH, _DETACH = 5, 8, 9
_FD_BY_ID, _INFO_BY_FD, _QUERY = 13, 15, 16
_CGROUP_DEVICE_PROGRAM = 15
_CGROUP_DEVICE = 6
_ALLOW_MULTI, _REPLACE = 2, 4
_MOST = 64
"""The most programs the kernel attaches to one cgroup."""

# The few instructions that are needed, by what they do.
_LOAD32, _AND, _SHIFT_RIGHT, _COPY, _SET = 0x61, 0x54, 0x74, 0xBC, 0xB4
_SKIP_IF_NOT, _SKIP_IF_NOT_REG, _SKIP_IF, _EXIT = 0x55, 0x5D, 0x15, 0x95


def _insn(code: int, dst: int = 0, src: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return pack("=BBhi", code, dst | src << 4, offset, immediate - (immediate >> 31 << 32))


_PROLOGUE = b"".join(
    (
        _insn(_LOAD32, 2, 1, 0),  # r2 = access << 16 | type
        _insn(_COPY, 3, 2),
        _insn(_AND, 2, immediate=0xFFFF),  # r2 = type
        _insn(_SHIFT_RIGHT, 3, immediate=16),  # r3 = access
        _insn(_LOAD32, 4, 1, 4),  # r4 = major
        _insn(_LOAD32, 5, 1, 8),  # r5 = minor
    )
)


def assemble(policy: Policy) -> bytes:
    """Return the program for a policy, as an array of `struct bpf_insn`.

    Below a denying default an exception allows an access that it covers wholly; below an allowing one it denies an
    access that it touches at all. Exceptions of every type with both numbers open come first: they decide most.
    """
    blocks = [
        _block(device, access, policy.allow)
        for device, access in sorted(policy.exceptions.items(), key=_openness)
    ]
    return b"".join((_PROLOGUE, *blocks, _answer(policy.allow)))


def _openness(item: tuple[tuple[str, int, int], int]) -> tuple[bool, bool]:
    (_, major, minor), _access = item
    return major != ANY, minor != ANY


def _answer(allow: bool) -> bytes:
    return _insn(_SET, 0, immediate=int(allow)) + _insn(_EXIT)


def _block(device: tuple[str, int, int], access: int, default: bool) -> bytes:
    kind, major, minor = device
    tests: list[bytes] = [b""]  # each is what comes before its jump; the jump itself is added last
    jumps: list[tuple[int, int, int, int]] = [(_SKIP_IF_NOT, 2, 0, _TYPES[kind])]
    if access != ALL or default:
        tests.append(_insn(_COPY, 1, 3) + _insn(_AND, 1, immediate=access))
        jumps.append((_SKIP_IF, 1, 0, 0) if default else (_SKIP_IF_NOT_REG, 1, 3, 0))
    for register, number in ((4, major), (5, minor)):
        if number != ANY:
            tests.append(b"")
            jumps.append((_SKIP_IF_NOT, register, 0, number))
    code = _answer(not default)
    for before, (jump, dst, src, value) in zip(reversed(tests), reversed(jumps), strict=True):
        code = before + _insn(jump, dst, src, len(code) // 8, value) + code
    return code


def attach(kernel: LinuxKernel, directory: str, policy: Policy) -> None:
    """Attach the program for `policy` to the cgroup at `directory`, in place of an earlier one of ours.

    Raises:
        Failure: The kernel refused; the message has the last line of its verifier.
        KernelError: EPERM for a caller without the right to load programs.
    """
    cgroup = posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    try:
        program = load(kernel, assemble(policy))
        try:
            _attach(kernel, cgroup, program)
        finally:
            posix.close(program)
    finally:
        posix.close(cgroup)


def _attach(kernel: LinuxKernel, cgroup: int, program: int) -> None:
    old = ours(kernel, cgroup)
    try:
        if old:
            try:
                _command(kernel, _ATTACH, cgroup, program, _ALLOW_MULTI | _REPLACE, old[0])
                return
            except KernelError as error:
                if error.errno != errno.EINVAL:  # before Linux 5.6 there is no replacing
                    raise
        _command(kernel, _ATTACH, cgroup, program, _ALLOW_MULTI, 0)
        for each in old:
            _command(kernel, _DETACH, cgroup, each, 0, 0)
    finally:
        for each in old:
            posix.close(each)


def _command(
    kernel: LinuxKernel, command: int, cgroup: int, program: int, flags: int, old: int
) -> None:
    kernel.bpf(command, bytearray(pack("=5I", cgroup, program, _CGROUP_DEVICE, flags, old)))


def load(kernel: LinuxKernel, code: bytes) -> int:
    """Load a program and return its descriptor.

    Raises:
        Failure: The kernel's verifier refused it.
        KernelError: The caller may not load programs.
    """
    held = buffer(bytearray(code))
    licence = buffer(bytearray(b"Apache-2.0\0"))
    log = bytearray(0)
    while True:
        held_log: Any = buffer(log) if log else None
        attributes = pack(
            "=IIQQIIQII16s",
            _CGROUP_DEVICE_PROGRAM,
            len(code) // 8,
            address(held),
            address(licence),
            1 if log else 0,
            len(log),
            address(held_log) if log else 0,
            0,
            0,
            NAME,
        )
        try:
            return kernel.bpf(_PROG_LOAD, bytearray(attributes))
        except KernelError as error:
            if error.errno == errno.EPERM:
                raise
            if log:
                why = log.rstrip(b"\0").decode("utf-8", "replace").strip().rpartition("\n")[2]
                raise Failure(
                    f"device rules: bpf program refused: {error.strerror}: {why}"
                ) from None
        log = bytearray(1 << 20)  # refused: ask again, with reasons


def ours(kernel: LinuxKernel, cgroup: int) -> list[int]:
    """Return new descriptors of the programs attached to a cgroup that bear our name."""
    found = []
    for number in _attached(kernel, cgroup):
        try:
            fd = kernel.bpf(_FD_BY_ID, bytearray(pack("=III", number, 0, 0)))
        except KernelError as error:
            if error.errno == errno.ENOENT:
                continue
            raise
        if _name(kernel, fd) == NAME:
            found.append(fd)
        else:
            posix.close(fd)
    return found


def _attached(kernel: LinuxKernel, cgroup: int) -> tuple[int, ...]:
    numbers = bytearray(4 * _MOST)
    attributes = bytearray(
        pack("=IIIIQII", cgroup, _CGROUP_DEVICE, 0, 0, address(buffer(numbers)), _MOST, 0)
    )
    kernel.bpf(_QUERY, attributes)
    count = unpack_from("=I", attributes, 24)[0]
    return unpack_from(f"={count}I", numbers)


def _name(kernel: LinuxKernel, fd: int) -> bytes:
    info = bytearray(80)  # struct bpf_prog_info up to its name
    kernel.bpf(_INFO_BY_FD, bytearray(pack("=IIQ", fd, len(info), address(buffer(info)))))
    return bytes(info[64:80])
