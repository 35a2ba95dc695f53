"""A prologue to seccomp filters: calls newer than the profile fail with ENOSYS.

A profile written before a call existed cannot mean to forbid it; and the C library tries new calls first and falls back
only when it is told ENOSYS. So a call whose number is above all that the profile names gets that answer, whatever the
profile's default action is.
"""

from __future__ import annotations

from _struct import pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    Label = str | int

ENOSYS_RESULT = 0x00050000 | 38
"""`SECCOMP_RET_ERRNO` with ENOSYS."""

X32_BIT = 0x40000000

_LOAD, _RETURN, _JUMP, _IF_EQUAL, _IF_GREATER, _IF_SET = 0x20, 0x06, 0x05, 0x15, 0x25, 0x45
_NUMBER, _ARCHITECTURE = 0, 4
"""Offsets in `struct seccomp_data`."""

_LE = 0x40000000
_64 = 0x80000000
_N32 = 0x20000000

AUDIT: dict[str, int] = {
    "SCMP_ARCH_X86": 3 | _LE,
    "SCMP_ARCH_X86_64": 62 | _64 | _LE,
    "SCMP_ARCH_X32": 62 | _64 | _LE,
    "SCMP_ARCH_ARM": 40 | _LE,
    "SCMP_ARCH_AARCH64": 183 | _64 | _LE,
    "SCMP_ARCH_MIPS": 8,
    "SCMP_ARCH_MIPS64": 8 | _64,
    "SCMP_ARCH_MIPS64N32": 8 | _64 | _N32,
    "SCMP_ARCH_MIPSEL": 8 | _LE,
    "SCMP_ARCH_MIPSEL64": 8 | _64 | _LE,
    "SCMP_ARCH_MIPSEL64N32": 8 | _64 | _LE | _N32,
    "SCMP_ARCH_PPC": 20,
    "SCMP_ARCH_PPC64": 21 | _64,
    "SCMP_ARCH_PPC64LE": 21 | _64 | _LE,
    "SCMP_ARCH_S390": 22,
    "SCMP_ARCH_S390X": 22 | _64,
    "SCMP_ARCH_PARISC": 15,
    "SCMP_ARCH_PARISC64": 15 | _64,
    "SCMP_ARCH_RISCV64": 243 | _64 | _LE,
    "SCMP_ARCH_LOONGARCH64": 258 | _64 | _LE,
    "SCMP_ARCH_M68K": 4,
    "SCMP_ARCH_SH": 42 | _LE,
    "SCMP_ARCH_SHEB": 42,
}
"""The kernel's `AUDIT_ARCH_*` by the specification's name; x32 shares that of x86_64 and differs in the number."""

MULTIPLEXED = frozenset(("SCMP_ARCH_S390", "SCMP_ARCH_S390X"))
"""Here a call too large for an immediate comes as number 0, which itself is no call anybody makes."""

Instruction = tuple[int, "Label", "Label", int]
"""Code, where to go when true, where when false, operand. A string is a label, a number a count to skip."""


def assemble(lines: list[str | Instruction]) -> bytes:
    """Return instructions as `struct sock_filter`s; a string among them is a label for the next one.

    The label `end` is behind the last instruction. A jump without condition reaches any distance, one with reaches 255.
    """
    places: dict[str, int] = {}
    code: list[Instruction] = []
    for line in lines:
        if isinstance(line, str):
            places[line] = len(code)
        else:
            code.append(line)
    places["end"] = len(code)

    def distance(label: Label, at: int) -> int:
        return places[label] - at - 1 if isinstance(label, str) else label

    found = []
    for at, (op, yes, no, operand) in enumerate(code):
        if op == _JUMP:
            found.append(pack("=HBBI", op, 0, 0, distance(yes, at)))
        else:
            found.append(pack("=HBBI", op, distance(yes, at), distance(no, at), operand))
    return b"".join(found)


def prologue(highest: dict[str, int]) -> bytes:
    """Return the instructions to put before a filter.

    Args:
        highest: The highest number the profile names, by the specification's name of the architecture.
    """
    kernels: dict[int, dict[str, int]] = {}
    for name, number in highest.items():
        kernels.setdefault(AUDIT[name], {})[name] = number
    if not kernels:
        return b""
    lines: list[str | Instruction] = [(_LOAD, 0, 0, _ARCHITECTURE)]
    for audit, names in kernels.items():
        after = f"after {audit}"
        lines.append((_IF_EQUAL, 0, after, audit))
        lines += _section(names)
        lines.append(after)
    return assemble(lines)


def _section(names: dict[str, int]) -> list[str | Instruction]:
    """Return the part for one of the kernel's architectures; A holds the architecture, and is free to use."""
    me = ",".join(names)
    refuse = f"refuse {me}"
    leave: Instruction = (_JUMP, "end", 0, 0)
    lines: list[str | Instruction] = [(_LOAD, 0, 0, _NUMBER)]
    x32 = names.get("SCMP_ARCH_X32")
    plain = next((number for name, number in names.items() if name != "SCMP_ARCH_X32"), None)
    if AUDIT["SCMP_ARCH_X86_64"] == AUDIT[next(iter(names))]:
        lines.append((_IF_SET, f"x32 {me}", 0, X32_BIT))
    if MULTIPLEXED.intersection(names):
        lines.append((_IF_EQUAL, refuse, 0, 0))
    if plain is not None:
        lines.append((_IF_GREATER, refuse, 0, plain))
    lines += [leave, f"x32 {me}"]
    if x32 is not None:
        lines.append((_IF_GREATER, refuse, 0, x32))
    return [*lines, leave, refuse, (_RETURN, 0, 0, ENOSYS_RESULT)]
