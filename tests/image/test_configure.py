from __future__ import annotations

import pytest

from argosy.errors import InvalidConfigError
from argosy.image.configure import CLEARABLE, Changes, clamped, now, rfc3339
from argosy.spec.imageconfig import ExecutionParameters, ImageConfig, LayerStack
from argosy.spec.platform import Platform

OLD = ImageConfig(
    architecture="amd64",
    os="linux",
    rootfs=LayerStack(type="layers"),
    extra={"container": "0123"},
    config=ExecutionParameters(
        user="www",
        env=("PATH=/bin", "A=1"),
        entrypoint=("/app",),
        cmd=("-v",),
        labels={"a": "1", "b": "2"},
        exposed_ports=("80/tcp",),
        volumes=("/data",),
        working_dir="/srv",
        stop_signal="SIGTERM",
        healthcheck={"Test": ["NONE"]},
        extra={"OnBuild": ["RUN x"]},
    ),
)


def test_no_change_gives_the_same_configuration() -> None:
    assert Changes().applied(OLD) is OLD


@pytest.mark.parametrize(
    ("changes", "attribute", "expected"),
    [
        (Changes(user="1:2"), "user", "1:2"),
        (Changes(env={"A": "2", "B": "3"}), "env", ("PATH=/bin", "A=2", "B=3")),
        (Changes(env={"A": None}), "env", ("PATH=/bin",)),
        (Changes(entrypoint=[]), "entrypoint", ()),
        (Changes(cmd=["x", "y"]), "cmd", ("x", "y")),
        (Changes(labels={"a": None, "c": "3"}), "labels", {"b": "2", "c": "3"}),
        (Changes(exposed_ports=["80/tcp", "53/udp"]), "exposed_ports", ("80/tcp", "53/udp")),
        (Changes(removed_ports=["80/tcp"]), "exposed_ports", ()),
        (Changes(volumes=["/more"], removed_volumes=["/data"]), "volumes", ("/more",)),
        (Changes(working_dir="/"), "working_dir", "/"),
        (Changes(stop_signal="SIGRTMIN+3"), "stop_signal", "SIGRTMIN+3"),
    ],
)
def test_each_execution_parameter_can_be_changed(
    changes: Changes, attribute: str, expected: object
) -> None:
    new = changes.applied(OLD)
    assert getattr(new.execution, attribute) == expected
    assert new.extra == OLD.extra
    assert new.execution.extra == OLD.execution.extra


@pytest.mark.parametrize("name", sorted(CLEARABLE))
def test_each_clearable_property_is_emptied(name: str) -> None:
    new = Changes(clear=frozenset({name})).applied(OLD)
    ((attribute, empty),) = CLEARABLE[name].items()
    assert getattr(OLD.execution, attribute) != empty
    assert getattr(new.execution, attribute) == empty


def test_what_is_cleared_can_be_set_in_the_same_change() -> None:
    new = Changes(clear=frozenset({"config.env"}), env={"X": "1"}).applied(OLD)
    assert new.execution.env == ("X=1",)


def test_a_platform_sets_all_of_its_parts() -> None:
    new = Changes(platform=Platform.parse("windows/amd64:10.0.1")).applied(OLD)
    assert (new.os, new.architecture, new.variant, new.os_version) == (
        "windows",
        "amd64",
        "",
        "10.0.1",
    )


def test_any_property_can_be_set_by_its_name_in_json() -> None:
    new = Changes(
        properties={"config.Healthcheck": {"Test": ["CMD", "x"]}, "x.org": 1, "container": None}
    ).applied(OLD)
    assert new.execution.healthcheck == {"Test": ["CMD", "x"]}
    assert new.extra == {"x.org": 1}


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("config.env", "config.Env"),
        ("Config.Env", "config.Env"),
        ("OS", "os"),
        ("config.Healthcheck.Test", "config.Healthcheck"),
        ("rootfs.diff_ids", "rootfs"),
    ],
)
def test_a_property_that_is_meant_for_a_known_one_is_refused(name: str, known: str) -> None:
    with pytest.raises(InvalidConfigError, match=rf"'{name}' is not known, but '{known}' is"):
        Changes(properties={name: ["A=b"]}).applied(OLD)
    new = Changes(properties={"os.features": ["win32k"], "config.OnBuild": []}).applied(OLD)
    assert new.os_features == ("win32k",)
    assert Changes(properties={name: None}).applied(OLD) == OLD


def test_a_property_of_the_wrong_kind_is_refused_by_name() -> None:
    with pytest.raises(InvalidConfigError, match=r"config\.Cmd"):
        Changes(properties={"config.Cmd": "not a list"}).applied(OLD)
    with pytest.raises(InvalidConfigError, match="rootfs"):
        Changes(properties={"rootfs": {}}).applied(OLD)


@pytest.mark.parametrize(
    "port", ["", "0", "70000", "80/icmp", "80-", "90-80", "eighty", "80/tcp/udp"]
)
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(InvalidConfigError, match="port"):
        Changes(exposed_ports=[port])


@pytest.mark.parametrize(
    "field",
    ["entrypoint", "cmd", "exposed_ports", "removed_ports", "volumes", "removed_volumes"],
)
def test_one_string_is_no_list(field: str) -> None:
    with pytest.raises(InvalidConfigError, match=f"{field}: expected a list, got '80'"):
        Changes(**{field: "80"})  # type: ignore[arg-type]


@pytest.mark.parametrize("signal", ["sigterm", "SIG TERM", "999", "SIGRTMIN+", "-9"])
def test_a_stop_signal_that_is_none_is_refused(signal: str) -> None:
    with pytest.raises(InvalidConfigError, match="stop signal"):
        Changes(stop_signal=signal)


def test_an_unknown_name_to_clear_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match=r"config\.nothing"):
        Changes(clear=frozenset({"config.nothing"}))


def test_times_after_the_epoch_are_clamped_and_others_kept() -> None:
    assert clamped("2024-01-01T00:00:00.123456789Z", 1_000_000_000) == "2001-09-09T01:46:40Z"
    assert clamped("1999-01-01T00:00:00.5+02:00", 1_000_000_000) == "1999-01-01T00:00:00.5+02:00"
    assert clamped(None, 0) is None
    assert now(0) == rfc3339(0)


def test_a_time_past_the_calendar_is_an_error_and_no_traceback() -> None:
    with pytest.raises(InvalidConfigError):
        rfc3339(10**15)
