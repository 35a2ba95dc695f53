"""The D-Bus client: its wire format, its limits, and a real bus."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.runtime.cgroups import dbus
from argosy.runtime.errors import Failure

BASIC: dict[str, st.SearchStrategy[Any]] = {
    "y": st.integers(0, 255),
    "b": st.booleans(),
    "n": st.integers(-(1 << 15), (1 << 15) - 1),
    "q": st.integers(0, (1 << 16) - 1),
    "i": st.integers(-(1 << 31), (1 << 31) - 1),
    "u": st.integers(0, (1 << 32) - 1),
    "x": st.integers(-(1 << 63), (1 << 63) - 1),
    "t": st.integers(0, (1 << 64) - 1),
    "d": st.floats(allow_nan=False),
    "s": st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
}


def typed(depth: int = 0) -> st.SearchStrategy[tuple[str, Any]]:
    basic = st.sampled_from(sorted(BASIC)).flatmap(
        lambda code: st.tuples(st.just(code), BASIC[code])
    )
    if depth > 2:
        return basic
    inner = st.deferred(lambda: typed(depth + 1))
    arrays = st.sampled_from(sorted(BASIC)).flatmap(
        lambda code: st.tuples(st.just("a" + code), st.lists(BASIC[code], max_size=5))
    )
    tuples = st.lists(inner, min_size=1, max_size=3).map(
        lambda items: (
            "(" + "".join(kind for kind, _ in items) + ")",
            tuple(value for _, value in items),
        )
    )
    return st.one_of(basic, arrays, tuples)


@given(st.lists(typed(), max_size=4))
def test_what_is_written_is_read_back(items: list[tuple[str, Any]]) -> None:
    writer = dbus.Writer()
    for kind, value in items:
        writer.put(kind, value)
    reader = dbus.Reader(bytes(writer.data))
    assert dbus.split("".join(kind for kind, _ in items)) == [kind for kind, _ in items]
    for kind, value in items:
        assert reader.get(kind) == value
    assert reader.at == len(writer.data)


def test_the_bytes_are_those_of_the_specification() -> None:
    writer = dbus.Writer()
    writer.put("y", 1)
    writer.put("a(sv)", [("k", ("t", 5))])
    assert bytes(writer.data) == (
        b"\x01\0\0\0"
        + struct.pack("<I", 24)
        + struct.pack("<I", 1)
        + b"k\0"
        + b"\x01t\0"
        + b"\0" * 7
        + struct.pack("<Q", 5)
    )


@given(st.binary(max_size=200))
def test_a_hostile_message_ends_in_one_error_and_no_other(data: bytes) -> None:
    try:
        dbus.parse(b"l\x02\0\x01" + struct.pack("<III", 0, 1, max(0, len(data) - 4)) + data)
    except Failure:
        pass
    except (TypeError, ValueError) as error:
        raise AssertionError(data) from error


@pytest.mark.parametrize(
    "signature", ["a", "(", "(s", "{sv", "Z", "a" * 40 + "s", "(" * 40 + "s" + ")" * 40]
)
def test_a_broken_signature_is_refused(signature: str) -> None:
    with pytest.raises(Failure, match=r"bus: "):
        dbus.split(signature)


@pytest.fixture
def bus(tmp_path: pathlib.Path) -> Iterator[str]:
    program = shutil.which("dbus-daemon")
    if program is None:
        pytest.skip("dbus-daemon is not installed")
    config = tmp_path / "bus.conf"
    config.write_text(
        f"""<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
        "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
        <busconfig><type>session</type><listen>unix:path={tmp_path}/bus</listen><auth>EXTERNAL</auth>
        <policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/>
        <allow receive_sender="*"/><allow send_type="method_call"/></policy></busconfig>"""
    )
    process = subprocess.Popen(
        [program, f"--config-file={config}", "--nofork", "--print-address=1"],
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout
        address = process.stdout.readline().decode().strip()
        yield address
    finally:
        process.terminate()
        process.communicate()


def test_a_real_bus_answers_and_its_errors_keep_their_names(bus: str) -> None:
    link = dbus.Bus(bus)
    try:
        me = "org.freedesktop.DBus"
        names = link.call(me, "/org/freedesktop/DBus", me, "ListNames")[0]
        assert me in names
        assert link.call(
            me, "/org/freedesktop/DBus", me, "GetConnectionUnixUser", "s", names[-1]
        ) == [os.geteuid()]
        with pytest.raises(dbus.BusError, match=r"ServiceUnknown") as caught:
            link.call("org.argosy.Nobody", "/", "org.argosy.Nobody", "Hello")
        assert caught.value.name == "org.freedesktop.DBus.Error.ServiceUnknown"
    finally:
        link.close()


def test_signals_that_come_before_the_answer_are_kept(bus: str) -> None:
    link, other = dbus.Bus(bus), dbus.Bus(bus)
    try:
        me = "org.freedesktop.DBus"
        rule = "type='signal',member='NameOwnerChanged'"
        link.call(me, "/org/freedesktop/DBus", me, "AddMatch", "s", rule)
        other.call(me, "/org/freedesktop/DBus", me, "RequestName", "su", "org.argosy.Test", 0)
        link.call(me, "/org/freedesktop/DBus", me, "GetId")
        assert link.wait("NameOwnerChanged")[0] == "org.argosy.Test"
        with pytest.raises(Failure, match=r"no answer in time"):
            link.wait("Never", patience=0.05)
    finally:
        link.close()
        other.close()


def test_the_second_address_is_tried_when_the_first_does_not_answer(
    bus: str, tmp_path: pathlib.Path
) -> None:
    dbus.Bus(f"tcp:host=x;unix:path={tmp_path}/nobody;{bus}").close()
    with pytest.raises(Failure, match=r"cannot connect to unix:path=.*: no such file or directory"):
        dbus.Bus(f"unix:path={tmp_path}/nobody")
    with pytest.raises(Failure, match=r"has no unix address"):
        dbus.Bus("tcp:host=localhost,port=1")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"REJECTED EXTERNAL\r\n", "authentication refused: REJECTED EXTERNAL"),
        (b"x" * 600, "too long"),
        (b"", "closed the connection"),
        (b"DATA\r\nOK 1\r\nHTTP/1.1 400 Bad Request", "does not speak D-Bus"),
        (b"DATA\r\nOK 1\r\nl\x02\0\x01" + struct.pack("<III", 1 << 30, 1, 0), "is larger than"),
        (b"DATA\r\nOK 1\r\nl\x02\0\x01" + struct.pack("<III", 0, 1, 1 << 31), "is larger than"),
    ],
)
def test_a_hostile_peer_gets_one_clear_error(
    tmp_path: pathlib.Path, answer: bytes, why: str
) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen(1)

    def serve() -> None:
        peer, _ = listener.accept()
        with peer, contextlib.suppress(OSError):
            peer.recv(64)
            peer.sendall(answer)
            if answer:
                peer.settimeout(20)
                while peer.recv(4096):
                    continue

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with pytest.raises(Failure, match=why):
            dbus.Bus(f"unix:path={tmp_path}/s")
    finally:
        thread.join()
        listener.close()
