"""Device rules: what a list comes to, the same on version 1, in BPF and for systemd."""

from __future__ import annotations

import os
import pathlib
import struct

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from argosy.runtime.cgroups import devicebpf, devices, unitprops
from argosy.runtime.errors import ConfigError, Failure
from argosy.runtime.kernel import KernelError, LinuxKernel
from tests.runtime.cgroupkit import files, legacy, need, sleeper, unified

DENY_ALL = {"allow": False, "access": "rwm"}

numbers = st.sampled_from([devices.ANY, 0, 1, 3, 5, 200])
rules = st.lists(
    st.fixed_dictionaries(
        {
            "allow": st.booleans(),
            "type": st.sampled_from(["a", "b", "c", None]),
            "major": numbers,
            "minor": numbers,
            "access": st.sampled_from(["r", "w", "m", "rw", "rwm", "", None]),
        }
    ),
    max_size=8,
)
accesses = st.tuples(
    st.sampled_from("bc"),
    st.sampled_from([0, 1, 3, 5, 10, 200]),
    st.sampled_from([0, 1, 3, 5, 200]),
    st.integers(1, 7),
)


def rule_of(allow: bool, major: int, minor: int, access: str) -> dict[str, object]:
    return {"allow": allow, "type": "c", "major": major, "minor": minor, "access": access}


few = st.sampled_from([devices.ANY, 200, 1])


def settled(listed: list[dict[str, object]]) -> devices.Policy:
    """What a list comes to; the example is dropped where that is refused."""
    try:
        return devices.policy(listed)
    except ConfigError:
        reject()


def ask(rules: list[dict[str, object]], kind: str, major: int, minor: int, bit: int) -> bool:
    """What the rules say of one kind of access, from the specification alone: the last one that fits decides."""
    answer = False
    defaults = [(True, *device) for device in devices.DEFAULTS]
    for allow, k, a, i, bits in [*(devices.parse(rule, "") for rule in rules), *defaults]:
        every = k == "a" or (k == kind and a in (devices.ANY, major) and i in (devices.ANY, minor))
        if every and (k == "a" or bits & bit):
            answer = allow
    return answer


def decide(policy: devices.Policy, kind: str, major: int, minor: int, access: int) -> bool:
    """What the kernel's version 1 controller decides, from its documentation."""
    for (k, a, i), bits in policy.exceptions.items():
        if k != kind or a not in (devices.ANY, major) or i not in (devices.ANY, minor):
            continue
        if policy.allow and access & bits:
            return False
        if not policy.allow and access & ~bits == 0:
            return True
    return policy.allow


def run(program: bytes, kind: str, major: int, minor: int, access: int) -> int:
    """A BPF interpreter for the instructions that are assembled."""
    context = struct.pack("=III", access << 16 | {"b": 1, "c": 2}[kind], major, minor)
    code = [struct.unpack_from("=BBhi", program, n) for n in range(0, len(program), 8)]
    r = [0] * 11
    at = 0
    while True:
        op, registers, offset, immediate = code[at]
        dst, src = registers & 15, registers >> 4
        value = immediate & 0xFFFFFFFF
        at += 1
        if op == 0x61:
            r[dst] = struct.unpack_from("=I", context, offset)[0]
        elif op == 0x54:
            r[dst] &= value
        elif op == 0x74:
            r[dst] >>= value
        elif op == 0xBC:
            r[dst] = r[src]
        elif op == 0xB4:
            r[dst] = value
        elif op == 0x55:
            at += offset if r[dst] != value else 0
        elif op == 0x5D:
            at += offset if r[dst] != r[src] else 0
        elif op == 0x15:
            at += offset if r[dst] == value else 0
        else:
            assert op == 0x95
            return r[0]


@settings(max_examples=300)
@given(rules, st.lists(accesses, min_size=1, max_size=20))
def test_the_bpf_program_decides_as_the_rules_say(
    listed: list[dict[str, object]], asked: list[tuple[str, int, int, int]]
) -> None:
    policy = settled(listed)
    program = devicebpf.assemble(policy)
    for each in asked:
        assert run(program, *each) == decide(policy, *each), each


@settings(max_examples=300)
@given(
    st.lists(st.builds(rule_of, st.booleans(), few, few, st.sampled_from(["r", "rw"])), max_size=5)
)
def test_nothing_is_allowed_that_a_later_rule_denies(listed: list[dict[str, object]]) -> None:
    policy = settled(listed)
    for bit in (devices.READ, devices.WRITE):
        for minor in (1, 2):
            if decide(policy, "c", 200, minor, bit):
                assert ask(listed, "c", 200, minor, bit), policy.exceptions


@settings(max_examples=200)
@given(rules, rules)
def test_the_writes_of_version_1_lead_from_any_list_to_any_other(
    before: list[dict[str, object]], after: list[dict[str, object]]
) -> None:
    now, wanted = settled(before), settled(after)
    for name, line in devices.transition(now, wanted):
        allow = name == "devices.allow"
        if line == "a":
            now.rule(allow, "a", devices.ANY, devices.ANY, devices.ALL)
            continue
        # The kernel adds to an exception, or takes away from this very one.
        for device, access in devices.parse_list(line).exceptions.items():
            held = now.exceptions.get(device, 0)
            now.exceptions[device] = held | access if allow != now.allow else held & ~access
            if not now.exceptions[device]:
                del now.exceptions[device]
    assert now.allow == wanted.allow
    assert now.exceptions == wanted.exceptions


def test_no_rules_at_all_deny_everything_but_the_defaults() -> None:
    """GHSA-g54h-m393-cpwq: a list of allowed devices must not be a list of exceptions to "allow all"."""
    for listed in (
        [],
        [DENY_ALL],
        [{"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}],
    ):
        policy = devices.policy(listed)
        assert not decide(policy, "b", 8, 0, devices.READ)
        assert not decide(policy, "c", 1, 1, devices.READ)  # /dev/mem
        assert decide(policy, "c", 1, 3, devices.READ | devices.WRITE)
        assert decide(policy, "b", 8, 0, devices.MKNOD)
        assert decide(policy, "c", 10, 200, devices.ALL)


def test_the_order_of_rules_matters() -> None:
    allow = {"allow": True, "type": "b", "major": 8, "minor": 0, "access": "r"}
    assert decide(devices.policy([DENY_ALL, allow]), "b", 8, 0, devices.READ)
    assert not decide(devices.policy([allow, DENY_ALL]), "b", 8, 0, devices.READ)


MISC = {"allow": True, "type": "c", "major": 10, "access": "rwm"}


@pytest.mark.parametrize("access", ["rwm", "w"])
def test_a_hole_in_an_exception_for_more_devices_is_refused(access: str) -> None:
    """The kernel would ignore it and leave the device open (version 1); no list of exceptions can say it."""
    hole = {"allow": False, "type": "c", "major": 10, "minor": 229, "access": access}
    why = rf"devices\[2\]: deny c 10:229 {access} cannot punch a hole in c 10:\* rwm"
    with pytest.raises(ConfigError, match=why):
        devices.policy([DENY_ALL, MISC, hole])
    allowed = [{**MISC, "allow": True, "type": "a"}, {**MISC, "allow": False}]
    with pytest.raises(ConfigError, match=r"devices\[2\]: allow c 10:229"):
        devices.policy([*allowed, {**hole, "allow": True}])
    assert devices.policy([DENY_ALL, {**MISC, "access": "r"}, {**hole, "access": "w"}])


def test_a_rule_for_more_devices_takes_away_what_was_said_of_one() -> None:
    one = {**MISC, "minor": 229}
    policy = devices.policy([DENY_ALL, one, {**MISC, "allow": False}])
    assert not decide(policy, "c", 10, 229, devices.READ)


def test_a_rule_for_one_device_is_not_held_against_all_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held: list[object] = []
    overlap, covers = devices._overlap, devices._covers

    def counted(one: devices.Device, other: devices.Device) -> bool:
        held.append(other)
        return overlap(one, other) and covers(one, other)

    monkeypatch.setattr(devices, "_overlap", counted)
    monkeypatch.setattr(devices, "_covers", counted)
    ones = [{**MISC, "minor": n, "allow": n % 3 > 0} for n in range(300)]
    policy = devices.policy([DENY_ALL, *ones, {**ones[1], "allow": False}])
    assert not decide(policy, "c", 10, 1, devices.READ)
    assert decide(policy, "c", 10, 2, devices.READ)
    assert len(held) == 1


@pytest.mark.parametrize(
    ("rule", "where"),
    [
        ({"allow": True, "type": "x"}, r"devices\[0\].type"),
        ({"allow": True, "type": "p"}, r"devices\[0\].type"),
        ({"allow": True, "access": "rx"}, r"devices\[0\].access"),
        ({"allow": True, "type": "c", "major": -2}, r"devices\[0\].major"),
        ({"allow": True, "type": "c", "minor": 1 << 32}, r"devices\[0\].minor"),
        ({"allow": True, "type": "c", "minor": "1"}, r"devices\[0\].minor"),
    ],
)
def test_a_rule_that_is_none_is_refused_by_its_place(rule: dict[str, object], where: str) -> None:
    with pytest.raises(ConfigError, match=where):
        devices.policy([rule])


def test_systemd_is_told_what_it_can_say() -> None:
    listed = [DENY_ALL, {"allow": True, "type": "b", "major": 8, "minor": 0, "access": "rw"}]
    found = dict(unitprops.device_properties(listed, 252)[1:])
    assert found["DevicePolicy"] == ("s", "strict")
    entries = found["DeviceAllow"][1]
    assert ("/dev/block/8:0", "rw") in entries
    assert ("char-*", "m") in entries
    assert ("char-136", "rwm") in entries
    assert unitprops.device_properties([{"allow": True}], 252) == [
        ("DeviceAllow", ("a(ss)", [])),
        ("DevicePolicy", ("s", "auto")),
    ]
    assert unitprops.device_path(("c", devices.ANY, 3), 252) is None
    assert unitprops.device_path(("c", 1, devices.ANY), 230) == "char-mem"


def opens(directory: str, path: str, flags: int) -> int:
    """The errno a process of that cgroup gets when it opens a device; 0 for none."""
    pid = os.fork()
    if pid == 0:
        try:
            pathlib.Path(directory, "cgroup.procs").write_text(str(os.getpid()))
            os.close(os.open(path, flags))
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or 255)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.root
@pytest.mark.parametrize("version", [1, 2])
def test_the_kernel_enforces_the_rules_and_an_update_replaces_them(
    version: int, tmp_path: pathlib.Path
) -> None:
    if not os.access("/dev/kmsg", os.F_OK):
        pytest.skip("devices: there is no /dev/kmsg")
    with legacy() if version == 1 else unified() as group:
        group.create()
        try:
            group.apply({})
        except KernelError as error:
            pytest.skip(f"devices: {error}")
        place = group.dirs["devices" if version == 1 else ""]
        assert opens(place, "/dev/null", os.O_RDWR) == 0
        assert opens(place, "/dev/kmsg", os.O_RDONLY) == 1
        kmsg = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}
        for _ in range(3):
            group.apply({"devices": [DENY_ALL, kmsg]})
        assert opens(place, "/dev/kmsg", os.O_RDONLY) == 0
        assert opens(place, "/dev/kmsg", os.O_WRONLY) == 1
        group.apply({"pids": {}})  # an update without devices leaves them alone
        assert opens(place, "/dev/kmsg", os.O_RDONLY) == 0
        group.apply({"devices": [DENY_ALL]})
        assert opens(place, "/dev/kmsg", os.O_RDONLY) == 1
        group.apply({"devices": [{"allow": True}, {**kmsg, "allow": False}]})
        assert opens(place, "/dev/zero", os.O_RDONLY) == 0


@pytest.mark.root
def test_our_program_is_replaced_and_others_are_left_alone() -> None:
    kernel = LinuxKernel()
    with unified() as group:
        group.create()
        fd = group.dirfd()
        assert fd is not None
        other = devicebpf.load(kernel, devicebpf.assemble(devices.Policy(allow=True)))
        try:
            for _ in range(3):
                devicebpf.attach(kernel, group.path, devices.policy([]))
            mine = devicebpf.ours(kernel, fd)
            assert len(mine) == 1
            for each in mine:
                os.close(each)
        finally:
            os.close(other)
            os.close(fd)


@pytest.mark.root
def test_a_program_the_verifier_refuses_tells_why() -> None:
    need("")
    with pytest.raises(Failure, match=r"bpf program refused"):
        devicebpf.load(LinuxKernel(), b"\x95" + bytes(7))  # exit without an answer


@pytest.mark.root
def test_a_device_in_use_is_never_denied_during_an_update() -> None:
    with legacy() as group, sleeper() as process:
        group.create()
        group.apply({"devices": [DENY_ALL]})
        group.enter(process.pid)
        place = pathlib.Path(group.dirs["devices"])
        now = devices.parse_list((place / "devices.list").read_text())
        again = devices.policy(
            [DENY_ALL, {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}]
        )
        assert devices.transition(now, again) == [("devices.allow", "c 10:229 rw")]


def test_an_old_list_of_the_kernel_is_read_back(tmp_path: pathlib.Path) -> None:
    place = files(tmp_path, devices__list="c *:* m\nb 8:0 rwm\n")
    found = devices.parse_list(pathlib.Path(place, "devices.list").read_text())
    assert found.exceptions == {("c", -1, -1): devices.MKNOD, ("b", 8, 0): devices.ALL}
    assert devices.parse_list("a *:* rwm\n").allow
