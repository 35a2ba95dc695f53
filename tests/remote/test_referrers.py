"""The list of referrers that clients keep: several of them at a registry that minds no condition."""

from __future__ import annotations

import types

import pytest

from argosy.errors import ArgosyError
from argosy.remote import referrers
from argosy.remote.refusals import error_of
from argosy.remote.wire import Request, Response, run
from argosy.spec import mediatypes
from argosy.spec._value import replace
from argosy.spec.descriptor import Descriptor
from argosy.spec.manifest import Index, Manifest, decode_manifest

SUBJECT, MINE, THEIRS = (
    Descriptor.of(mediatypes.OCI_MANIFEST, text) for text in (b"subject", b"mine", b"theirs")
)
PATIENCE = 0.1
"""Seconds that every request takes."""


class Registry:
    """Holds the list, on a clock of its own. Another client's write comes `late` seconds after our first."""

    def __init__(self, late: float) -> None:
        self.now, self.late, self.due = 0.0, late, 0.0
        self.raw = b""

    def send(self, request: Request) -> Response:
        self.now += request.pause + PATIENCE
        if self.due and self.now >= self.due:
            self.due, self.raw = 0.0, Index(manifests=(THEIRS,)).encode()
        if request.method == "GET":
            return Response(200 if self.raw else 404, data=self.raw)
        if not self.raw:
            self.due = self.now + self.late
        assert isinstance(request.body, bytes)
        self.raw = request.body
        return Response(201)


@pytest.mark.parametrize("kind", [None, "application/x.sbom"])
def test_an_entry_has_the_type_of_its_artifact_or_else_of_its_config(kind: str | None) -> None:
    config = Descriptor.of(mediatypes.OCI_CONFIG, b"{}")
    manifest = Manifest(config=config, artifact_type=kind, annotations={"a": "1"})
    entry = referrers.entry_of(replace(MINE, annotations={"b": "2"}), manifest)
    assert entry.artifact_type == (kind or mediatypes.OCI_CONFIG)
    assert entry.annotations == {"a": "1"}
    listed = referrers.entry_of(MINE, Index(manifests=(), artifact_type=kind))
    assert listed.artifact_type == kind


@pytest.mark.parametrize(("status", "asked"), [(400, 2), (500, 2), (409, 4), (412, 4)])
def test_a_list_is_written_again_only_where_another_came_first(status: int, asked: int) -> None:
    class Refusing(Registry):
        methods: list[str] = []

        def send(self, request: Request) -> Response:
            self.methods.append(request.method)
            if self.methods == ["GET", "PUT"]:
                raise error_of(Response(status), request)
            return super().send(request)

    registry = Refusing(0.0)
    registry.methods = []
    if asked == 2:
        with pytest.raises(ArgosyError):
            run(referrers.add("app", SUBJECT.digest, [MINE]), registry)
    else:
        run(referrers.add("app", SUBJECT.digest, [MINE]), registry)
    assert registry.methods[:4] == ["GET", "PUT", "GET", "PUT"][:asked]


@pytest.mark.parametrize("late", [0.0, 0.5, 1.5])
def test_who_read_the_list_before_our_write_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, late: float
) -> None:
    registry = Registry(late * PATIENCE)
    clock = types.SimpleNamespace(monotonic=lambda: registry.now)
    monkeypatch.setattr(referrers, "time", clock, raising=False)
    run(referrers.add("app", SUBJECT.digest, [MINE]), registry)
    found = decode_manifest(registry.raw)
    assert isinstance(found, Index)
    assert {e.digest for e in found.manifests} == {MINE.digest, THEIRS.digest}
    assert not registry.due
