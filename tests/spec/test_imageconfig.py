"""Image configurations: every property, nulls, unknown ones, and chain ids (image-spec, config.md)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.errors import InvalidConfigError, LimitExceededError
from argosy.spec.digest import Digest
from argosy.spec.imageconfig import (
    MAX_SIZE,
    ExecutionParameters,
    History,
    ImageConfig,
    LayerStack,
    chain_ids,
)

FULL: dict[str, Any] = {
    "created": "2015-10-31T22:22:56.015925234Z",
    "author": "Alyssa",
    "architecture": "arm",
    "os": "linux",
    "os.version": "1",
    "os.features": ["f"],
    "variant": "v7",
    "config": {
        "User": "alice", "ExposedPorts": {"8080/tcp": {}}, "Env": ["A=b"], "Entrypoint": ["/bin/a"], "Cmd": ["x"],
        "Volumes": {"/v": {}}, "WorkingDir": "/w", "Labels": {"l": "1"}, "StopSignal": "SIGTERM", "ArgsEscaped": True,
        "Memory": 1, "MemorySwap": 2, "CpuShares": 3, "Healthcheck": {"Test": ["NONE"]},
        "Shell": ["/bin/sh"],
    },
    "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(b"a")), str(Digest.of(b"b"))]},
    "history": [{"created": "2015-10-31T22:22:54Z", "created_by": "x", "empty_layer": True, "own": 1}],
    "docker_version": "1",
}  # fmt: skip


def test_every_property_survives() -> None:
    assert json.loads(ImageConfig.decode(json.dumps(FULL).encode()).encode()) == FULL


text = st.text(max_size=8)
texts = st.lists(text, max_size=2).map(tuple)
names = st.lists(text, max_size=2, unique=True).map(tuple)
times = st.none() | st.just("2015-10-31T22:22:56.015925234Z")
unknown = st.dictionaries(text.map(lambda s: f"x-{s}"), st.none() | st.floats(0, 1), max_size=2)
executions = st.builds(
    ExecutionParameters,
    user=text,
    exposed_ports=names,
    env=texts,
    entrypoint=st.none() | texts,
    cmd=st.none() | texts,
    volumes=names,
    labels=st.dictionaries(text, text, max_size=2),
    args_escaped=st.booleans(),
    memory=st.none() | st.integers(),
    extra=unknown,
)
steps = st.builds(History, created=times, comment=text, empty_layer=st.booleans(), extra=unknown)
configs = st.builds(
    ImageConfig,
    created=times,
    architecture=text,
    os=text,
    os_features=texts,
    config=st.none() | executions,
    rootfs=st.lists(st.binary(max_size=2).map(Digest.of), max_size=2).map(
        lambda diff_ids: LayerStack(type="layers", diff_ids=tuple(diff_ids))
    ),
    history=st.lists(steps, max_size=2).map(tuple),
    extra=unknown,
)


@given(configs)
def test_what_is_encoded_is_decoded(config: ImageConfig) -> None:
    assert ImageConfig.decode(config.encode()) == config


def test_null_is_the_same_as_absent() -> None:
    value = FULL | {"created": None, "history": None, "config": None, "os.features": None}
    config = ImageConfig.decode(json.dumps(value).encode())
    assert config.created is None
    assert config.history == ()
    assert config.execution.env == ()


def test_an_empty_entrypoint_is_not_an_absent_one() -> None:
    value = FULL | {"config": {"Entrypoint": [], "Cmd": None}}
    config = ImageConfig.decode(json.dumps(value).encode())
    assert config.execution.entrypoint == ()
    assert config.execution.cmd is None
    assert ImageConfig.decode(config.encode()) == config


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"architecture": None}, "architecture: this property is required"),
        ({"os": None}, "os: this property is required"),
        ({"rootfs": None}, "rootfs: this property is required"),
        (
            {"rootfs": {"type": "squashfs", "diff_ids": []}},
            "rootfs: type: expected 'layers', got 'squashfs'",
        ),
        ({"rootfs": {"type": "layers", "diff_ids": ["x"]}}, "rootfs.diff_ids[0]"),
        ({"created": "yesterday"}, "created: expected a date and time as in RFC 3339"),
        ({"config": {"Env": "A=b"}}, "config.Env: expected an array"),
        ({"config": {"Labels": {"l": 1}}}, "config.Labels.l: expected a string, got a number"),
        ({"config": {"Memory": 1e3}}, "config.Memory: expected a whole number, got 1000.0"),
        ({"config": {"ExposedPorts": []}}, "config.ExposedPorts: expected an object"),
        ({"history": [{"empty_layer": "yes"}]}, "history[0].empty_layer: expected a boolean"),
    ],
)
def test_what_breaks_the_specification_is_refused_with_its_property(
    change: dict[str, Any], told: str
) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        ImageConfig.decode(json.dumps(FULL | change).encode())
    assert told in str(caught.value)


def test_a_configuration_over_the_limit_is_refused() -> None:
    with pytest.raises(LimitExceededError):
        ImageConfig.decode(b" " * (MAX_SIZE + 1))


def test_chain_ids_follow_the_recursion_of_the_specification() -> None:
    a, b, c = (Digest.of(x) for x in (b"a", b"b", b"c"))
    ab = Digest.of(f"{a} {b}".encode())
    assert chain_ids((a, b, c)) == (a, ab, Digest.of(f"{ab} {c}".encode()))
    assert chain_ids(()) == ()
