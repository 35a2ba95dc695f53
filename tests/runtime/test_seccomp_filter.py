"""seccomp: what a profile comes to, decided by an interpreter of classic BPF and by the kernel."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.runtime import enosys, filtercache, libseccomp, seccomp
from argosy.runtime.errors import ConfigError, Failure
from argosy.runtime.kernel import KernelError, LinuxKernel, buffer

ALLOW, KILL = 0x7FFF0000, 0
X86_64 = enosys.AUDIT["SCMP_ARCH_X86_64"]
GETPID, SOCKET, PERSONALITY = 39, 41, 135
NEEDED = [
    "read", "write", "exit_group", "close", "mmap", "munmap", "brk", "openat", "fstat", "newfstatat", "lseek",
    "rt_sigaction", "rt_sigprocmask", "madvise", "futex", "ioctl", "sendmsg", "poll",
]  # fmt: skip


@pytest.fixture
def library() -> libseccomp.Library:
    if os.uname().machine != "x86_64":
        pytest.skip("seccomp: the numbers in these tests are those of x86_64")
    try:
        return libseccomp.Library()
    except Failure as failure:
        pytest.skip(str(failure))


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


def profile(default: str, *rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"defaultAction": default, "syscalls": list(rules), **more}


def rule(names: str, action: str, *args: tuple[int, str, int, int], **more: Any) -> dict[str, Any]:
    listed = [{"index": i, "op": op, "value": v, "valueTwo": w} for i, op, v, w in args]
    return {"names": names.split(), "action": action, "args": listed, **more}


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


def test_the_cache_gives_back_what_was_compiled_and_nothing_damaged(
    library: libseccomp.Library, tmp_path: pathlib.Path
) -> None:
    place = tmp_path / "cache"
    given = profile("SCMP_ACT_ERRNO", rule("read", "SCMP_ACT_ALLOW"))
    first = seccomp.prepare(given, str(place))
    assert place.stat().st_mode & 0o777 == 0o700
    (kept,) = place.iterdir()
    assert seccomp.prepare(given, str(place)).program == first.program
    data = kept.read_bytes()
    for damaged in (data[:-8], b"", data[:8] + b"\xff" * 8 + data[16:], data + b"x" * 8):
        kept.write_bytes(damaged)
        assert seccomp.prepare(given, str(place)).program == first.program
    other = seccomp.prepare({**given, "defaultErrnoRet": 2}, str(place))
    assert other.program != first.program
    assert len(list(place.iterdir())) == 2


def test_a_file_of_another_profile_is_not_taken(tmp_path: pathlib.Path) -> None:
    place = str(tmp_path / "cache")
    filtercache.put(place, b"one", b"12345678")
    filtercache.put(place, b"two", b"87654321")
    one, two = (filtercache._hash(key).hex() for key in (b"one", b"two"))
    os.replace(f"{place}/{one}", f"{place}/{two}")
    assert filtercache.get(place, b"two") is None
    assert filtercache.get(place, b"one") is None


def test_a_cache_others_can_enter_is_not_used(tmp_path: pathlib.Path) -> None:
    place = tmp_path / "cache"
    filtercache.put(str(place), b"key", b"12345678")
    assert filtercache.get(str(place), b"key") == b"12345678"
    place.chmod(0o750)
    assert filtercache.get(str(place), b"key") is None
    place.chmod(0o700)
    link = tmp_path / "link"
    link.symlink_to(place)
    assert filtercache.get(str(link), b"key") is None
    if os.geteuid() == 0:
        os.chown(place, 1234, 1234)
        assert filtercache.get(str(place), b"key") is None


def test_the_cache_is_bounded(tmp_path: pathlib.Path) -> None:
    place = tmp_path / "cache"
    for n in range(filtercache.MOST + 20):
        filtercache.put(str(place), b"%d" % n, b"12345678")
    assert len(list(place.iterdir())) <= filtercache.MOST


def in_child(action: Callable[[], int]) -> int:
    """The status of a child that does something: what it returns, or 128 and the signal that killed it."""
    pid = os.fork()
    if pid == 0:
        status = 255
        try:
            status = action()
        finally:
            os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else 128 - code


def loaded(prepared: seccomp.Filter, *calls: int) -> int:
    """The sum of the errnos of calls made under a filter in a child."""
    kernel = LinuxKernel()

    def act() -> int:
        kernel.prctl(38, 1)
        seccomp.load(kernel, prepared)
        total = 0
        for number in calls:
            kernel._numbers["under test"] = number
            try:
                kernel.call("under test", 0)
            except KernelError as error:
                total += error.errno or 0
        return total

    return in_child(act)


def test_the_kernel_takes_the_filter_and_decides_as_said(library: libseccomp.Library) -> None:
    allowed = seccomp.prepare(
        profile("SCMP_ACT_ERRNO", rule(" ".join(NEEDED), "SCMP_ACT_ALLOW"), defaultErrnoRet=13),
        None,
    )
    assert loaded(allowed, GETPID) == 13
    assert loaded(allowed, 435) == 38
    killed = seccomp.prepare(
        profile("SCMP_ACT_ALLOW", rule("getppid", "SCMP_ACT_KILL_PROCESS")), None
    )
    assert loaded(killed, 110) == 128 + 31


def test_the_default_profile_of_podman_loads_and_lets_python_run(
    library: libseccomp.Library, tmp_path: pathlib.Path
) -> None:
    source = pathlib.Path("/usr/share/containers/seccomp.json")
    if not source.exists():
        pytest.skip("podman's default seccomp profile is not installed")
    document = json.loads(source.read_text())
    rules = [
        {
            key: each[key]
            for key in ("names", "action", "args", "errnoRet")
            if each.get(key) is not None
        }
        for each in document["syscalls"]
        if not each.get("includes") and not each.get("excludes")
    ]
    given = {
        "defaultAction": document["defaultAction"],
        "defaultErrnoRet": document["defaultErrnoRet"],
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    }
    prepared = seccomp.prepare(given, str(tmp_path / "cache"))
    assert loaded(prepared, GETPID) == 0
    assert loaded(prepared, 246) in (1, 38)  # kexec_load
    assert (
        in_child(lambda: (seccomp.load(LinuxKernel(), prepared), len(os.listdir("/")) and 0)[1])
        == 0
    )


def test_a_notification_reaches_the_agent_with_one_state_and_one_descriptor(
    library: libseccomp.Library, tmp_path: pathlib.Path
) -> None:
    path = str(tmp_path / "agent")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)
    prepared = seccomp.prepare(
        profile(
            "SCMP_ACT_ALLOW",
            rule("getppid", "SCMP_ACT_NOTIFY"),
            listenerPath=path,
            listenerMetadata="m",
        ),
        None,
    )
    assert prepared.notifies
    assert (prepared.listener_path, prepared.metadata) == (path, "m")
    state = json.dumps(
        {"ociVersion": "1.3.0", "fds": ["seccompFd"], "pid": 1, "pad": "x" * 300000}
    ).encode()
    kernel = LinuxKernel()
    answered: list[bytes] = []

    def agent() -> None:
        peer, _ = listener.accept()
        with peer:
            data, fds, _, _ = socket.recv_fds(peer, 1 << 20, 4)
            while part := peer.recv(1 << 20):
                data += part
        answered.append(data)
        (fd,) = fds
        notification = bytearray(80)
        import fcntl

        fcntl.ioctl(fd, 0xC0502100, notification)
        (number,) = struct.unpack_from("=Q", notification)
        fcntl.ioctl(fd, 0xC0182101, bytearray(struct.pack("=QqiI", number, 0, -77, 0)))
        os.close(fd)

    thread = threading.Thread(target=agent)
    thread.start()

    def act() -> int:
        kernel.prctl(38, 1)
        fd = seccomp.load(kernel, prepared)
        assert fd is not None
        seccomp.send_listener(prepared, fd, state)
        os.close(fd)
        kernel._numbers["under test"] = 110
        try:
            kernel.call("under test")
        except KernelError as error:
            return error.errno or 0
        return 0

    try:
        assert in_child(act) == 77
    finally:
        thread.join(20)
        listener.close()
    assert answered == [state]


def test_an_agent_that_is_not_there_is_an_error(tmp_path: pathlib.Path) -> None:
    prepared = seccomp.Filter(b"", 8, str(tmp_path / "nobody"), None)
    with pytest.raises(
        Failure, match=r"failed to send seccomp descriptor to listener .*/nobody: no such file"
    ):
        seccomp.send_listener(prepared, 0, b"{}")


def test_without_a_notify_rule_the_listener_is_ignored(library: libseccomp.Library) -> None:
    found = seccomp.prepare(
        profile("SCMP_ACT_ALLOW", listenerPath="/x", listenerMetadata="m"), None
    )
    assert (found.listener_path, found.metadata, found.notifies) == (None, None, False)
    assert buffer(bytearray(found.program)) is not None
