"""Values behave as frozen dataclasses with slots do."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
from typing import Any

import pytest

from argosy.errors import (
    ArgosyError,
    DigestMismatchError,
    KernelError,
    ManifestUnknownError,
    ResponseError,
    TooManyRequestsError,
)
from argosy.spec._value import Value, field, replace
from argosy.spec.digest import Digest
from argosy.spec.imageconfig import ImageConfig


class Point(Value):
    """A place on a map."""

    x: int
    y: int = 0
    names: dict[str, str] = field(default_factory=dict)
    secret: str = field(default="", repr=False)


class Named(Value, kw_only=True):
    """A value whose fields are given by name."""

    name: str
    size: int = 1

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError("size: expected 0 or more")


def test_fields_are_given_in_order_or_by_name() -> None:
    assert Point(1, 2) == Point(1, y=2) == Point(x=1, y=2)
    assert (Point(1).y, Point(1).names) == (0, {})
    assert Point(1).names is not Point(1).names


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Point(), "Point() lacks x"),  # type: ignore[call-arg]
        (lambda: Point(1, 2, {}, "", 5), "each once"),  # type: ignore[call-arg]
        (lambda: Point(1, x=1), "each once"),  # type: ignore[misc]
        (lambda: Point(1, z=1), "Point() has no z"),  # type: ignore[call-arg]
        (lambda: Named("a"), "each once"),  # type: ignore[call-arg]
    ],
)
def test_wrong_arguments_are_told(make: Any, told: str) -> None:
    with pytest.raises(TypeError) as caught:
        make()
    assert told in str(caught.value)


def test_what_a_class_refuses_is_not_made() -> None:
    with pytest.raises(ValueError, match="size"):
        Named(name="a", size=-1)
    with pytest.raises(ValueError, match="size"):
        dataclasses.replace(Named(name="a"), size=-1)


def test_another_value_is_made_of_one() -> None:
    assert replace(Point(1, 2), y=3) == Point(1, 3)
    with pytest.raises(ValueError, match="size"):
        replace(Named(name="a"), size=-1)
    with pytest.raises(TypeError, match="no z"):
        replace(Point(1), z=3)


def test_a_field_of_dataclasses_is_refused_and_no_default() -> None:
    with pytest.raises(TypeError, match=r"Wrong\.x"):

        class Wrong(Value):
            x: dict[str, str] = dataclasses.field(default_factory=dict)


def test_a_value_does_not_change_and_has_no_other_attributes() -> None:
    point: Any = Point(1)
    for name in ("x", "other"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(point, name, 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        del point.x
    assert not hasattr(point, "__dict__")


def test_equality_and_hash_are_those_of_class_and_fields() -> None:
    assert Named(name="a") == Named(name="a") != Named(name="b")
    assert Named(name="a") != Point(1)
    assert len({Named(name="a"), Named(name="a"), Named(name="b")}) == 2


def test_what_is_secret_is_not_shown() -> None:
    assert repr(Point(1, 2, secret="hidden")) == "Point(x=1, y=2, names={})"


def test_dataclasses_takes_it() -> None:
    point = Point(1, 2, {"en": "here"})
    assert dataclasses.is_dataclass(point)
    assert dataclasses.replace(point, y=3) == Point(1, 3, {"en": "here"})
    assert [each.name for each in dataclasses.fields(Point)] == ["x", "y", "names", "secret"]
    assert dataclasses.asdict(point) == {"x": 1, "y": 2, "names": {"en": "here"}, "secret": ""}
    assert point.__replace__(x=4) == Point(4, 2, {"en": "here"})


def test_a_question_about_one_class_changes_no_other() -> None:
    """In an interpreter of its own: here other tests have asked before."""
    script = """
from __future__ import annotations
import dataclasses, pydoc
from argosy.errors import KernelError
from argosy.spec._value import Value
class Point(Value):
    x: int
    y: int = 0
assert dataclasses.is_dataclass(Value) and dataclasses.fields(Value) == ()
assert "Point(x=1, y=2)" in pydoc.render_doc(Value)
assert [f.name for f in dataclasses.fields(Point)] == ["x", "y"]
assert dataclasses.asdict(Point(1, 2)) == {"x": 1, "y": 2}
assert dataclasses.replace(Point(1, 2), y=3) == Point(1, 3)
assert dataclasses.fields(Value) == ()
assert dataclasses.fields(Point)[0] is dataclasses.fields(Point)[0]
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_what_holds_tables_has_a_hash_too() -> None:
    one, same, other = (Point(x, names={"a": "b"}) for x in (1, 1, 2))
    assert len({one, same, other}) == 2
    config = ImageConfig.decode(
        b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},'
        b'"config":{"Labels":{"a":"b"},"Healthcheck":{"Test":["NONE"]}},"x":[1]}'
    )
    assert len({config, ImageConfig.decode(config.encode())}) == 1


@pytest.mark.parametrize(
    "error",
    [
        ManifestUnknownError("v1 is not there", hint="look elsewhere"),
        DigestMismatchError("blob", expected=Digest.of(b"a"), actual=Digest.of(b"b")),
        ResponseError("GET /: 500", method="GET", url="http://x/", http_status=500, body=b"no"),
        TooManyRequestsError("slowly", retry_after=1.5),
        KernelError("mount", step="rootfs", syscall="mount", errno=13, hint="be root"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_keeps_what_it_says_when_it_is_copied(error: ArgosyError) -> None:
    error.add_note("while it was tried")
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (type(twin), str(twin), vars(twin)) == (type(error), str(error), vars(error))
        assert getattr(twin, "errno", None) == getattr(error, "errno", None)


def test_copies_and_pickles_are_equal() -> None:
    point = Point(1, 2, {"en": "here"}, secret="s")
    for twin in (copy.copy(point), copy.deepcopy(point), pickle.loads(pickle.dumps(point))):
        assert twin == point
    assert copy.deepcopy(point).names is not point.names


def test_its_fields_can_be_matched_in_order_where_they_are_given_so() -> None:
    match Point(1, 2):
        case Point(x, y):
            assert (x, y) == (1, 2)
    assert Named.__match_args__ == ()


def test_its_signature_tells_of_every_field() -> None:
    assert str(inspect.signature(Named)) == "(*, name: 'str', size: 'int' = 1)"
    assert list(inspect.signature(Point).parameters) == ["x", "y", "names", "secret"]
