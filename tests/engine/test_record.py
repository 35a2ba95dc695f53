"""What is kept of a container, and how it is judged when it is read."""

from __future__ import annotations

import json
import os
import pathlib

import pytest

from argosy.engine.container import Container
from argosy.engine.devices import Device
from argosy.engine.mounts import Mount
from argosy.engine.options import Published, RunOptions
from argosy.engine.places import Places
from argosy.engine.record import Record
from argosy.engine.values import Ulimit
from argosy.errors import ContainerUnknownError, InvalidConfigError

DECODE, REALPATH = Record.decode, os.path.realpath


@pytest.fixture
def places(tmp_path: pathlib.Path) -> Places:
    made = Places(data=str(tmp_path), run=str(tmp_path), runtime=())
    made.make()
    return made


@pytest.fixture
def container(places: Places) -> Container:
    made = Container.make(places, RunOptions(name="web"), image="i", digest="d", detached=True)
    made.release()
    return made


def test_the_record_of_a_newer_argosy_is_read_and_a_damaged_one_is_named(
    places: Places, container: Container
) -> None:
    record = pathlib.Path(container.file("container.json"))
    value = json.loads(record.read_text())
    record.write_text(json.dumps({**value, "added": 1}))
    assert [c.id for c in Container.every(places)] == [container.id]
    another = json.dumps({**value, "id": "f" * 64})
    for damaged in ("", "{", "[]", "\0", json.dumps({"id": container.id}), another):
        record.write_text(damaged)
        assert list(Container.every(places)) == []
        assert [c.status for c in Container.every(places, damaged=True)] == ["damaged"]
        for text in (container.id, container.id[:8]):
            with pytest.raises(InvalidConfigError, match=r"container\.json: "):
                Container.find(places, text)
            assert Container.find(places, text, damaged=True).path == container.path
    for nobody in ("web", "..", "", "/"):
        with pytest.raises(ContainerUnknownError):
            Container.find(places, nobody)


def test_no_other_record_is_decoded_and_a_name_goes_before_the_first_digits(
    places: Places, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = RunOptions(name=container.id[:6])
    other = Container.make(places, options, image="i", digest="d", detached=True)
    other.release()
    assert Container.find(places, container.id[:6]).id == other.id
    read: list[str] = []

    def decode(text: str, places: Places, container_id: str) -> Record:
        read.append(container_id)
        return DECODE(text, places, container_id)

    monkeypatch.setattr(Record, "decode", decode)
    for text in (container.id, "web", container.id[:7]):
        assert Container.find(places, text).id == container.id
    with pytest.raises(ContainerUnknownError):
        Container.find(places, "nosuch")
    assert read == [container.id] * 3


def test_where_the_layers_are_is_looked_up_once_for_all(
    places: Places, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    container.record.layers = [f"{places.layers}/sha256-{n}" for n in range(100)]
    container.save()
    looked: list[str] = []

    def realpath(path: str) -> str:
        looked.append(path)
        return REALPATH(path)

    monkeypatch.setattr(os.path, "realpath", realpath)
    assert len(Container.find(places, container.id).record.layers) == 100
    assert set(looked) == {places.layers}
    assert len(looked) == 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"watcher": -7}, "watcher: expected a process id, got -7"),
        ({"watcher": "1"}, "watcher: expected an integer"),
        ({"options": 7}, "options: expected an object, got 7"),
        ({"options": {"published": [7]}}, r"options\.published\[0\]: expected an object, got 7"),
        ({"options": {"published": [{}]}}, r"options\.published\[0\]\.address: is missing"),
        ({"options": {"tty": 1}}, r"options\.tty: expected true or false, got 1"),
        ({"options": {"cpus": "2"}}, r"options\.cpus: expected a number, got '2'"),
        ({"command": "sh"}, "command: expected an array, got 'sh'"),
        ({"command": None}, "command: is missing"),
        ({"layers": ["/etc"]}, r"layers: expected those in /\S+/layers, got \['/etc'\]"),
        ({"exit_code": 1000}, "exit_code: expected 0 to 255, got 1000"),
        ({"created": "yesterday"}, "created: expected a time, got 'yesterday'"),
        ({"created": ""}, "created: expected a time, got ''"),
        ({"started": "2026-01-01"}, "started: expected a time, got '2026-01-01'"),
        ({"id": "../../etc"}, r"id: expected [0-9a-f]{64}, got '\.\./\.\./etc'"),
    ],
)
def test_a_record_that_makes_no_sense_is_damaged(
    places: Places, container: Container, change: dict[str, object], told: str
) -> None:
    record = pathlib.Path(container.file("container.json"))
    record.write_text(json.dumps({**json.loads(record.read_text()), **change}))
    assert list(Container.every(places)) == []
    assert [c.status for c in Container.every(places, damaged=True)] == ["damaged"]
    with pytest.raises(InvalidConfigError, match=rf"container\.json: {told}"):
        Container.find(places, container.id)


def test_a_record_with_every_option_is_read_as_it_was_written(places: Places) -> None:
    options = RunOptions(
        mounts=(Mount.volume("/a:/b:ro"),), published=tuple(Published.parse("8080:80")), cpus=1.5,
        ulimits=(Ulimit.parse("nofile=1"),), devices=(Device.parse("/dev/fuse"),), groups=("1",), memory=1 << 30,
    )  # fmt: skip
    made = Container.make(places, options, image="i", digest="d", detached=True)
    assert RunOptions.decode(Container.load(places, made.id).record.options) == options
    file = pathlib.Path(made.file("container.json"))
    value = json.loads(file.read_text())
    del value["options"]["groups"]
    file.write_text(json.dumps(value))
    assert Container.load(places, made.id).record.options["groups"] == (), "as of an older argosy"
    made.release()
