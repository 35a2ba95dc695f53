"""Published flaws of registry clients: what a hostile registry says about content."""

from __future__ import annotations

import io
import pathlib
from collections.abc import Iterator

import pytest

from argosy.errors import (
    ArgosyError,
    DigestMismatchError,
    InvalidDigestError,
    InvalidManifestError,
    LimitExceededError,
)
from argosy.remote.config import Options
from argosy.remote.registry import Registry
from argosy.remote.repository import Repository
from argosy.remote.wire import SettledError
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import Index, Manifest
from argosy.spec.reference import Reference
from tests.wire import scripted as s

CONFIG = Descriptor.of(mediatypes.OCI_CONFIG, b"{}")
RAW = Manifest(config=CONFIG).encode()


@pytest.fixture
def scripted() -> Iterator[s.Scripted]:
    server = s.Scripted()
    yield server
    server.close()


@pytest.fixture
def repository(scripted: s.Scripted) -> Iterator[Repository]:
    with Registry(scripted.name, Options(retry_delay=0.001)) as registry:
        yield registry.repository("app")


@pytest.mark.parametrize("media_type", [mediatypes.OCI_MANIFEST, mediatypes.OCI_INDEX])
@pytest.mark.parametrize("own", [True, False], ids=["says what it is", "does not say"])
def test_cve_2021_41190_a_document_of_two_kinds_is_refused(
    scripted: s.Scripted, repository: Repository, media_type: str, own: bool
) -> None:
    """CVE-2021-41190: a document that is a manifest to one tool and an index to another."""
    import json

    both = json.loads(RAW) | {"manifests": [], "layers": []}
    both.pop("mediaType")
    raw = json.dumps(both | ({"mediaType": media_type} if own else {})).encode()
    scripted.on("HEAD", ".*", s.answer(405))
    scripted.on("GET", ".*", s.manifest(raw, media_type))
    with pytest.raises(InvalidManifestError):
        repository.resolve("v1")


def test_cve_2021_41190_the_header_and_the_document_must_agree(
    scripted: s.Scripted, repository: Repository
) -> None:
    scripted.on("HEAD", ".*", s.answer(405))
    scripted.on("GET", ".*", s.manifest(RAW, mediatypes.OCI_INDEX))
    with pytest.raises(InvalidManifestError):
        repository.resolve("v1")


def test_ghsa_qv35_3gw6_8q4j_a_pinned_digest_decides(
    scripted: s.Scripted, repository: Repository
) -> None:
    """GHSA-qv35-3gw6-8q4j: a client that asked by tag though the reference was pinned to a digest."""
    evil = Manifest(config=CONFIG, annotations={"evil": "yes"}).encode()
    reference = Reference.parse(f"{scripted.name}/app:v1@{Digest.of(RAW)}")
    for path in ("v1", Digest.of(RAW)):
        answer = s.manifest(evil, Docker_Content_Digest=Digest.of(evil))
        scripted.on("*", f"/v2/app/manifests/{path}", answer)
    with pytest.raises(DigestMismatchError):
        repository.resolve(reference.tag_or_digest)
    assert not scripted.requests("", ".*/v1")


@pytest.mark.parametrize(
    "digest",
    ["../../../etc/passwd", "sha256:../../x", "sha256:" + "A" * 64, "sha256:" + "a" * 63, "md5"],
)
def test_cve_2024_3727_a_digest_is_valid_or_is_none(
    scripted: s.Scripted, repository: Repository, digest: str
) -> None:
    """CVE-2024-3727: a digest that was never checked became a path."""
    scripted.on("HEAD", ".*", s.manifest(RAW, Docker_Content_Digest=digest))
    scripted.on("GET", ".*", s.manifest(RAW, Docker_Content_Digest=digest))
    assert repository.resolve("v1").digest == Digest.of(RAW)
    index = b'{"schemaVersion":2,"manifests":[{"mediaType":"%b","size":1,"digest":"%b"}]}'
    scripted._routes.clear()
    scripted.on("HEAD", ".*", s.answer(405))
    scripted.on(
        "GET",
        ".*",
        s.manifest(
            index % (mediatypes.OCI_MANIFEST.encode(), digest.encode()), mediatypes.OCI_INDEX
        ),
    )
    with pytest.raises((InvalidDigestError, InvalidManifestError)):
        repository.resolve("v1")


def test_cve_2020_1702_a_manifest_of_any_size_does_not_fill_the_memory(
    scripted: s.Scripted, repository: Repository
) -> None:
    """CVE-2020-1702: a registry could make the client read without end."""
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: "
        + s.MANIFEST.encode()
        + b"\r\nContent-Length: 99999999999\r\n\r\n"
    )
    sent = bytearray()

    def send(seen: s.Seen, peer: s.Peer) -> bool:
        peer.sock.sendall(head)
        try:
            while len(sent) < 64 << 20:
                peer.sock.sendall(b" " * 65536)
                sent.extend(b" " * 65536)
        except OSError:
            pass
        return False

    scripted.on("HEAD", ".*", s.answer(405))
    scripted.on("GET", ".*", send)
    with pytest.raises(LimitExceededError):
        repository.resolve("v1")
    assert len(sent) < 64 << 20


def test_an_error_body_of_any_size_does_not_fill_the_memory(
    scripted: s.Scripted, repository: Repository
) -> None:
    scripted.on("*", ".*", s.answer(418, {}, b"x" * 5_000_000))
    with pytest.raises(ArgosyError) as caught:
        repository.resolve("v1")
    assert len(str(caught.value)) < 1000


def test_a_mirror_is_believed_no_more_than_the_registry(
    scripted: s.Scripted, tmp_path: pathlib.Path
) -> None:
    """A mirror that sends other bytes is no way in: the digest decides."""
    from argosy.remote.config import Registries

    mirror = s.Scripted()
    blob = Descriptor.of(mediatypes.OCI_LAYER, b"right")
    mirror.on("GET", ".*", s.answer(200, {}, b"wrong"))
    rules = Registries([{"location": scripted.name, "mirror": [{"location": mirror.name}]}])
    with (
        Registry(scripted.name, Options(registries=rules)) as registry,
        pytest.raises(DigestMismatchError),
    ):
        registry.repository("app").fetch(blob).read()
    mirror.close()


@pytest.mark.parametrize("broken", ["http://[::1", "http://[x", "http://[x]:1/", "http://h:x/"])
def test_a_broken_address_is_no_defect_of_ours(
    scripted: s.Scripted, repository: Repository, broken: str
) -> None:
    blob = Descriptor.of(mediatypes.OCI_LAYER, b"layer")
    index = {"Content-Type": mediatypes.OCI_INDEX, "Link": f'<{broken}>; rel="next"'}
    scripted.on("GET", "/v2/app/referrers/.*", s.answer(200, index, Index().encode()))
    scripted.on("GET", ".*/tags/.*", s.answer(200, index, b'{"tags":["a"]}'))
    scripted.on("GET", ".*/blobs/.*", s.answer(307, {"Location": broken}))
    scripted.on("POST", ".*", s.answer(202, {"Location": broken}))
    scripted.on(
        "HEAD",
        "/v2/app/manifests/.*",
        s.answer(401, {"WWW-Authenticate": f'Bearer realm="{broken}"'}),
    )
    for act in (
        lambda: list(repository.tags()),
        lambda: list(repository.referrers(blob)),
        lambda: repository.fetch(blob).read(),
        lambda: repository.push(blob, io.BytesIO(b"layer")),
        lambda: repository.resolve("v1"),
    ):
        with pytest.raises(SettledError, match=r"address|URL|token server"):
            act()


def test_the_realm_of_a_host_that_a_redirect_led_to_may_be_broken_too(
    scripted: s.Scripted, repository: Repository
) -> None:
    other = s.Scripted()
    scripted.on("GET", ".*", s.answer(307, {"Location": f"{other.url}/x"}))
    other.on("GET", "/x", s.answer(401, {"WWW-Authenticate": 'Bearer realm="http://["'}))
    blob = Descriptor.of(mediatypes.OCI_LAYER, b"layer")
    with pytest.raises(SettledError, match="names no address"):
        repository.fetch(blob).read()
    other.close()


def test_numbers_without_end_are_no_defect_of_ours(
    scripted: s.Scripted, repository: Repository
) -> None:
    """CPython refuses to read numbers of more than 4300 digits, and floats end at 1e308."""
    digest = Digest.of(RAW)
    long = {"Content-Length": "9" * 5000, "Docker-Content-Digest": digest}
    scripted.on("HEAD", ".*", s.answer(200, {"Content-Type": s.MANIFEST, **long}))
    token = b'{"token":"t","expires_in":' + b"9" * 400 + b"}"
    scripted.on("GET", "/token.*", s.answer(200, {}, token))
    challenge = {"WWW-Authenticate": f'Bearer realm="{scripted.url}/token"'}
    scripted.on("GET", ".*", s.answer(401, challenge), s.manifest(RAW))
    assert repository.resolve("v1").size == len(RAW)
    with pytest.raises(ArgosyError):
        repository.blob(digest)


def test_control_characters_from_a_registry_reach_no_terminal(
    scripted: s.Scripted, repository: Repository
) -> None:
    body = b'{"errors":[{"code":"DENIED","message":"\\u001b]0;owned\\u0007"}]}'
    scripted.on("*", ".*", s.answer(403, {}, body))
    with pytest.raises(ArgosyError, match="owned") as caught:
        list(repository.tags())
    assert str(caught.value).isprintable()
