"""seccomp: what a profile comes to, decided by an interpreter of classic BPF."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.runtime import enosys, libseccomp, seccomp
from argosy.runtime.errors import ConfigError, Failure
from tests.runtime.seccompkit import ALLOW, GETPID, KILL, PERSONALITY, SOCKET, X86_64, profile, rule


def decide(program: bytes, arch: int, number: int, *args: int) -> int:
    """An interpreter of classic BPF over `struct seccomp_data`."""
    padded = [*args, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("=iIQ6Q", number - (number >> 31 << 32), arch, 0, *padded)
    a = x = 0
    memory = [0] * 16
    at = 0
    while True:
        code, yes, no, k = struct.unpack_from("=HBBI", program, at * 8)
        at += 1
        operand = x if code & 8 else k
        if code == 0x20:
            a = struct.unpack_from("=I", data, k)[0]
        elif code == 0x06:
            return int(k)
        elif code == 0x05:
            at += k
        elif code == 0x54 or code == 0x5C:
            a &= operand
        elif code == 0x61:
            x = memory[k]
        elif code == 0x60:
            a = memory[k]
        elif code == 0x02:
            memory[k] = a
        elif code == 0x03:
            memory[k] = x
        elif code == 0x07:
            x = a
        elif code == 0x87:
            a = x
        else:
            kind = code & 0xF7
            truth = {
                0x15: a == operand,
                0x25: a > operand,
                0x35: a >= operand,
                0x45: bool(a & operand),
            }[kind]
            at += yes if truth else no


def errno(number: int) -> int:
    return 0x00050000 | number


def test_actions_have_the_kernels_values(library: libseccomp.Library) -> None:
    for action, value in seccomp.ACTIONS.items():
        if action == "SCMP_ACT_NOTIFY":
            continue
        wanted = value | (1 if action in seccomp.WITH_ERRNO else 0)
        default = "SCMP_ACT_ALLOW" if action != "SCMP_ACT_ALLOW" else "SCMP_ACT_LOG"
        program = seccomp.prepare(profile(default, rule("getpid", action)), None).program
        assert decide(program, X86_64, GETPID) == wanted, action
        assert decide(program, X86_64, SOCKET) == seccomp.ACTIONS[default]


def test_an_errno_can_be_chosen_and_is_eperm_otherwise(library: libseccomp.Library) -> None:
    rules = (
        rule("getpid", "SCMP_ACT_ERRNO", errnoRet=99),
        rule("socket", "SCMP_ACT_ERRNO"),
        rule("read", "SCMP_ACT_TRACE", errnoRet=7),
    )
    program = seccomp.prepare(profile("SCMP_ACT_ERRNO", *rules, defaultErrnoRet=13), None).program
    assert decide(program, X86_64, GETPID) == errno(99)
    assert decide(program, X86_64, SOCKET) == errno(1)
    assert decide(program, X86_64, 0) == 0x7FF00007
    assert decide(program, X86_64, 1) == errno(13)


@pytest.mark.parametrize(
    ("op", "value", "two", "hits", "misses"),
    [
        ("SCMP_CMP_NE", 5, 0, (4, 6, 1 << 40), (5,)),
        ("SCMP_CMP_LT", 5, 0, (0, 4), (5, 6, 1 << 40)),
        ("SCMP_CMP_LE", 5, 0, (0, 5), (6, 1 << 40)),
        ("SCMP_CMP_EQ", 1 << 40, 0, (1 << 40,), (0, 5, (1 << 40) + 1)),
        ("SCMP_CMP_GE", 5, 0, (5, 6, 1 << 40), (0, 4)),
        ("SCMP_CMP_GT", 5, 0, (6, 1 << 40), (0, 5)),
        ("SCMP_CMP_MASKED_EQ", 0xF0, 0x50, (0x50, 0x5F, 0x1050), (0x40, 0xF0, 0)),
    ],
)
def test_operators_compare_all_64_bits(
    library: libseccomp.Library,
    op: str,
    value: int,
    two: int,
    hits: tuple[int, ...],
    misses: tuple[int, ...],
) -> None:
    program = seccomp.prepare(
        profile("SCMP_ACT_ALLOW", rule("socket", "SCMP_ACT_ERRNO", (0, op, value, two))), None
    ).program
    assert [decide(program, X86_64, SOCKET, n) for n in hits] == [errno(1)] * len(hits)
    assert [decide(program, X86_64, SOCKET, n) for n in misses] == [ALLOW] * len(misses)


def test_conditions_on_several_arguments_hold_together_and_on_one_each_alone(
    library: libseccomp.Library,
) -> None:
    both = rule("socket", "SCMP_ACT_ERRNO", (0, "SCMP_CMP_EQ", 1, 0), (1, "SCMP_CMP_EQ", 2, 0))
    either = rule(
        "personality", "SCMP_ACT_ERRNO", (0, "SCMP_CMP_EQ", 1, 0), (0, "SCMP_CMP_EQ", 2, 0)
    )
    program = seccomp.prepare(profile("SCMP_ACT_ALLOW", both, either), None).program
    assert [decide(program, X86_64, SOCKET, *a) for a in ((1, 2), (1, 3), (3, 2))] == [
        errno(1),
        ALLOW,
        ALLOW,
    ]
    assert [decide(program, X86_64, PERSONALITY, n) for n in (1, 2, 3)] == [
        errno(1),
        errno(1),
        ALLOW,
    ]


def test_every_architecture_of_the_specification_is_known_or_refused_by_name(
    library: libseccomp.Library,
) -> None:
    for name in seccomp.ARCHITECTURES:
        given = profile("SCMP_ACT_ALLOW", rule("getpid", "SCMP_ACT_ERRNO"), architectures=[name])
        token = library.architecture(seccomp.ARCHITECTURES[name])
        big_endian = bool(token) and not enosys.AUDIT[name] & 0x40000000
        if not token or big_endian:
            with pytest.raises(ConfigError, match=r"architectures\[0\]"):
                seccomp.prepare(given, None)
            continue
        program = seccomp.prepare(given, None).program
        number = library.number("getpid", token)
        assert decide(program, enosys.AUDIT[name], number) == errno(1), name


def test_numbers_of_x32_carry_its_bit(library: libseccomp.Library) -> None:
    assert library.number("read", library.architecture("x32")) == enosys.X32_BIT


def test_another_architecture_than_the_profiles_is_killed(library: libseccomp.Library) -> None:
    only = seccomp.prepare(
        profile("SCMP_ACT_ALLOW", rule("getpid", "SCMP_ACT_ERRNO")), None
    ).program
    assert decide(only, enosys.AUDIT["SCMP_ARCH_X86"], 20) == KILL
    two = seccomp.prepare(
        profile(
            "SCMP_ACT_ALLOW", rule("getpid", "SCMP_ACT_ERRNO"), architectures=["SCMP_ARCH_X86"]
        ),
        None,
    )
    assert decide(two.program, enosys.AUDIT["SCMP_ARCH_X86"], 20) == errno(1)
    assert decide(two.program, X86_64, GETPID) == errno(1)


def test_calls_newer_than_the_profile_get_enosys(library: libseccomp.Library) -> None:
    program = seccomp.prepare(
        profile("SCMP_ACT_KILL", rule("read openat", "SCMP_ACT_ALLOW")), None
    ).program
    openat = 257
    assert decide(program, X86_64, openat) == ALLOW
    assert decide(program, X86_64, GETPID) == KILL
    assert [decide(program, X86_64, n) for n in (openat + 1, 435, 9999)] == [errno(38)] * 3


@pytest.mark.parametrize("default", ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"])
def test_a_default_that_lets_calls_through_needs_no_enosys(
    library: libseccomp.Library, default: str
) -> None:
    program = seccomp.prepare(profile(default, rule("getpid", "SCMP_ACT_KILL")), None).program
    assert decide(program, X86_64, 9999) & 0xFFFF0000 == seccomp.ACTIONS[default]
    assert decide(
        seccomp.prepare(
            profile("SCMP_ACT_ERRNO", rule("read", "SCMP_ACT_ALLOW"), defaultErrnoRet=38), None
        ).program,
        X86_64,
        9999,
    ) == errno(38)


numbers = st.dictionaries(st.sampled_from(sorted(enosys.AUDIT)), st.integers(1, 500), max_size=8)


@settings(max_examples=200)
@given(numbers, st.integers(0, 600), st.booleans())
def test_the_prologue_refuses_exactly_what_is_above_the_highest(
    highest: dict[str, int], number: int, x32: bool
) -> None:
    passed = b"\x06\0\0\0" + struct.pack("=I", ALLOW)
    if "SCMP_ARCH_X32" in highest:  # numbers of x32 have the bit, in libseccomp as in the kernel
        highest["SCMP_ARCH_X32"] |= enosys.X32_BIT
    program = enosys.prologue(highest) + passed
    for name, audit in enosys.AUDIT.items():
        asked = number | enosys.X32_BIT if x32 and audit == X86_64 else number
        key = next(
            (
                n
                for n in highest
                if enosys.AUDIT[n] == audit and (n == "SCMP_ARCH_X32") == (x32 and audit == X86_64)
            ),
            None,
        )
        refused = key is not None and (
            asked > highest[key] or (number == 0 and key in enosys.MULTIPLEXED)
        )
        assert decide(program, audit, asked) == (errno(38) if refused else ALLOW), (name, key)


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, r"SCMP_ACT_NOTIFY cannot be used as default action"),
        ({"defaultAction": "SCMP_ACT_MAYBE"}, r"defaultAction: string SCMP_ACT_MAYBE is not a valid action"),
        ({}, r"defaultAction"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}, r"defaultErrnoRet: the action SCMP_ACT_ALLOW takes no errno"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 70000}, r"defaultErrnoRet: expected 0 to 65535, got 70000"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_VAX"]}, r"architectures\[0\]: string SCMP_ARCH_VAX"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_X"]}, r"flags\[0\]: string SECCOMP_FILTER_FLAG_X"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}, r"listenerMetadata: must not be set without listenerPath"),
        (profile("SCMP_ACT_ALLOW", rule("read", "SCMP_ACT_KILL", errnoRet=1)), r"syscalls\[0\].errnoRet: the action SCMP_ACT_KILL takes no errno"),
        (profile("SCMP_ACT_ALLOW", rule("", "SCMP_ACT_KILL")), r"syscalls\[0\].names"),
        (profile("SCMP_ACT_ALLOW", {"names": ["a", ""], "action": "SCMP_ACT_KILL"}), r"syscalls\[0\].names"),
        (profile("SCMP_ACT_ALLOW", rule("read", "SCMP_ACT_KILL", (6, "SCMP_CMP_EQ", 0, 0))), r"args\[0\].index: expected 0 to 5"),
        (profile("SCMP_ACT_ALLOW", rule("read", "SCMP_ACT_KILL", (0, "SCMP_CMP_IS", 0, 0))), r"args\[0\].op: string SCMP_CMP_IS"),
        (profile("SCMP_ACT_ALLOW", rule("read", "SCMP_ACT_KILL", (0, "SCMP_CMP_EQ", -1, 0))), r"args\[0\].value: expected 64 bits"),
        (profile("SCMP_ACT_ALLOW", rule("read write", "SCMP_ACT_NOTIFY"), listenerPath="/x"), r"SCMP_ACT_NOTIFY cannot be used for the write syscall"),
        (profile("SCMP_ACT_ALLOW", rule("read", "SCMP_ACT_NOTIFY")), r"listenerPath: must be set"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_profile_is_said_by_its_place(
    given: dict[str, Any], where: str
) -> None:
    with pytest.raises(ConfigError, match=where):
        seccomp.check(given)


def test_flags_are_the_kernels_and_their_absence_means_spec_allow() -> None:
    names = list(seccomp.FLAGS)
    assert seccomp.flag_bits({}, False) == 4
    assert seccomp.flag_bits({"flags": []}, False) == 0
    assert seccomp.flag_bits({"flags": names}, False) == 6
    assert seccomp.flag_bits({"flags": names}, True) == 6 | 8 | 32


def test_unknown_calls_and_rules_that_say_the_default_are_left_out(
    library: libseccomp.Library,
) -> None:
    rules = (rule("no_such_call getpid", "SCMP_ACT_ERRNO"), rule("socket", "SCMP_ACT_ALLOW"))
    assert (
        decide(seccomp.prepare(profile("SCMP_ACT_ALLOW", *rules), None).program, X86_64, SOCKET)
        == ALLOW
    )


def test_a_missing_libseccomp_is_named() -> None:
    with pytest.raises(Failure, match=r"libnosuch.so.9 cannot be loaded .* install libseccomp"):
        libseccomp.Library("libnosuch.so.9")
