"""Lists: tags, the catalog, referrers (distribution-spec, "Content Discovery")."""

from __future__ import annotations

import json
import threading
from typing import Any
from urllib.parse import quote

import pytest

from argosy.errors import DeniedError
from argosy.server.access import Anonymous, Principal, Verb
from argosy.server.metadata import manifests
from argosy.server.settings import Limits, Settings
from argosy.spec import distribution, mediatypes
from argosy.spec.digest import Digest
from tests.server.client import Answer, Server, image, index, subject

TAGS = sorted(["1.0", "1.0-rc", "Z", "_x", "a", "a-b", "a.b", "a_b", "b"])


def follow(server: Server, target: str, key: str) -> list[str]:
    found: list[str] = []
    while True:
        answer = server.ask("GET", target)
        assert answer.status == 200
        found += answer.json()[key]
        following = distribution.next_link(answer.all("link"))
        if following is None:
            return found
        target = following


@pytest.fixture
def tagged(server: Server) -> Server:
    raw = server.ask("GET", f"/v2/a/manifests/{server.push_image('a')}").body
    for tag in reversed(TAGS):
        server.push_manifest("a", raw, tag)
    return server


def test_tags_are_in_byte_order(tagged: Server) -> None:
    answer = tagged.ask("GET", "/v2/a/tags/list")
    assert answer.json() == {"name": "a", "tags": TAGS}
    assert answer.header("link") is None


@pytest.mark.parametrize("n", range(1, len(TAGS) + 2))
def test_pages_of_tags_neither_skip_nor_repeat(tagged: Server, n: int) -> None:
    assert follow(tagged, f"/v2/a/tags/list?n={n}", "tags") == TAGS


def test_no_tags_asked_for_are_none_and_no_link(tagged: Server) -> None:
    answer = tagged.ask("GET", "/v2/a/tags/list?n=0")
    assert (answer.json()["tags"], answer.header("link")) == ([], None)


def test_last_need_not_exist_and_needs_no_n(tagged: Server) -> None:
    assert tagged.ask("GET", "/v2/a/tags/list?last=a-a").json()["tags"] == TAGS[TAGS.index("a-b") :]
    assert tagged.ask("GET", "/v2/a/tags/list?last=zzz").json()["tags"] == []


@pytest.mark.parametrize("n", ["-1", "x", "1e3", "", "9" * 50])
def test_a_size_that_is_no_number_is_400(tagged: Server, n: str) -> None:
    assert tagged.ask("GET", f"/v2/a/tags/list?n={n}").status == 400


def test_a_repository_without_tags_has_an_empty_list(server: Server) -> None:
    server.push_image("a")
    assert server.ask("GET", "/v2/a/tags/list").json()["tags"] == []


# -- the catalog ----------------------------------------------------------------------------------

NAMES = sorted(["a", "a-b", "a.b", "a/b", "a_b", "ab", "b", "b/c/d"])


def test_the_catalog_lists_each_repository_once_in_byte_order(server: Server) -> None:
    for name in reversed(NAMES):
        server.push_image(name)
    server.push_blob("only/blobs", b"x")
    for n in (1, 2, 3, 7, 8, 100):
        assert follow(server, f"/v2/_catalog?n={n}", "repositories") == NAMES
    assert server.ask("GET", "/v2/_catalog?n=0").json() == {"repositories": []}


class Odd(Anonymous):
    """Repositories with an even number are nobody's business."""

    def authorize(self, principal: Principal, verb: Verb, repository: str | None) -> None:
        if verb == "list" and repository and int(repository[1:]) % 2 == 0:
            raise DeniedError("no")


def test_the_catalog_shows_only_what_may_be_read(tmp_path: Any) -> None:
    with Server(str(tmp_path), access=Odd()) as server:
        for number in range(20):
            server.push_image(f"r{number:02}")
        expected = [f"r{number:02}" for number in range(1, 20, 2)]
        for n in (1, 3, 10, 50):
            assert follow(server, f"/v2/_catalog?n={n}", "repositories") == expected


# -- referrers ------------------------------------------------------------------------------------


def referrers(server: Server, digest: Digest, query: str = "") -> Answer:
    return server.ask("GET", f"/v2/a/referrers/{digest}{query}")


def test_an_unknown_subject_has_an_empty_index(server: Server) -> None:
    answer = referrers(server, Digest.of(b"x"))
    assert answer.status == 200
    assert answer.header("content-type") == mediatypes.OCI_INDEX
    assert answer.json() == {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_INDEX,
        "manifests": [],
    }


def test_referrers_carry_type_and_annotations(server: Server) -> None:
    of = server.push_image("a", "t")
    notes = {"org.example.note": "ü\u2028\U0001f600"}
    more = {"subject": subject(of), "annotations": notes}
    raws = [
        image(**more, artifactType="application/x.sig"),
        image(**more),
        index(**more, artifactType="application/x.index"),
        index(**more),
    ]
    expected = ["application/x.sig", mediatypes.OCI_CONFIG, "application/x.index", None]
    for raw in raws:
        server.push_manifest("a", raw)
    found = {one["digest"]: one for one in referrers(server, of).json()["manifests"]}
    assert len(found) == 4
    for raw, kind in zip(raws, expected, strict=True):
        one = found[Digest.of(raw)]
        assert one["size"] == len(raw)
        assert one["mediaType"] == json.loads(raw)["mediaType"]
        assert one.get("artifactType") == kind
        assert one["annotations"] == notes


def test_a_filter_is_applied_and_told(server: Server) -> None:
    of = server.push_image("a", "t")
    for kind in ("application/x.a", "application/x.b+json"):
        server.push_manifest("a", image(subject=subject(of), artifactType=kind))
    answer = referrers(server, of, "?artifactType=application/x.b%2Bjson")
    assert answer.header("oci-filters-applied") == "artifactType"
    assert [one["artifactType"] for one in answer.json()["manifests"]] == ["application/x.b+json"]


def test_a_type_with_parameters_is_found_as_it_is_written(server: Server) -> None:
    of = server.push_image("a", "t")
    kind = 'application/x.bundle+json; version="0.2"'
    server.push_manifest("a", image(subject=subject(of), artifactType=kind))
    (entry,) = referrers(server, of, f"?artifactType={quote(kind)}").json()["manifests"]
    assert entry["artifactType"] == kind


def test_many_referrers_come_in_pages(tmp_path: Any) -> None:
    with Server(str(tmp_path), settings=Settings(limits=Limits(page=3))) as server:
        of = server.push_image("a", "t")
        pushed = {
            server.push_manifest(
                "a", image(subject=subject(of), artifactType="x/y", annotations={"n": str(n)})
            )
            for n in range(10)
        }
        for query in ("", "?n=1", "?artifactType=x/y", "?artifactType=x/y&n=2"):
            target = f"/v2/a/referrers/{of}{query}"
            found = follow(server, target, "manifests")
            assert sorted(one["digest"] for one in found) == sorted(pushed)  # type: ignore[index]


def test_a_page_of_referrers_ends_at_four_megabytes(server: Server) -> None:
    of = server.push_image("a", "t")
    big = {f"k{n}": "x" * 10_000 for n in range(150)}
    for number in range(4):
        server.push_manifest("a", image(subject=subject(of), annotations=big | {"n": str(number)}))
    first = referrers(server, of)
    assert len(first.body) < 4.2 * 1024 * 1024
    assert len(follow(server, f"/v2/a/referrers/{of}", "manifests")) == 4


NOTE = 3 * 1024 * 1024


def test_annotations_that_do_not_fit_on_a_page_are_not_read(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = server.push_image("a", "t")
    for number in range(5):
        notes = {"n": str(number), "note": "x" * NOTE}
        server.push_manifest("a", image(subject=subject(of), annotations=notes))
    read: list[int] = []
    ask = manifests.annotations_of

    def counted(tx: Any, name: str, digests: Any) -> dict[str, bytes]:
        assert threading.current_thread() is not threading.main_thread()
        found = ask(tx, name, digests)
        read.append(sum(map(len, found.values())))
        return found

    monkeypatch.setattr(manifests, "annotations_of", counted)
    listed = follow(server, f"/v2/a/referrers/{of}", "manifests")
    assert len(listed) == 5
    assert max(read) < 4 * 1024 * 1024
    assert all(len(one["annotations"]["note"]) == NOTE for one in listed)  # type: ignore[index]


def test_annotations_no_page_could_show_are_refused_beside_a_subject(server: Server) -> None:
    of = server.push_image("a", "t")
    big = {"note": "x" * (4 * 1024 * 1024)}
    refused = server.put_manifest("a", image(subject=subject(of), annotations=big), "r")
    assert (refused.status, refused.code) == (413, "SIZE_INVALID")
    assert server.put_manifest("a", image(annotations=big), "r").status == 201
    wide = {"note": "ü" * (2 * 1024 * 1024 - 20)}
    document = json.loads(image(subject=subject(of), annotations=wide))
    server.push_manifest("a", json.dumps(document, ensure_ascii=False).encode())
    assert referrers(server, of).json()["manifests"][0]["annotations"] == wide


def test_annotations_of_an_older_version_that_no_page_can_show_are_left_out(server: Server) -> None:
    of = server.push_image("a", "t")
    one = server.push_manifest("a", image(subject=subject(of), annotations={"a": "b"}))
    big = json.dumps({"note": "x" * (5 * 1024 * 1024)})
    server.run(
        server.registry.metadata.write(
            lambda tx: tx.rows(
                "UPDATE manifest_body SET annotations = ? WHERE digest = ?", (big, one)
            )
        )
    )
    (entry,) = referrers(server, of).json()["manifests"]
    assert entry["digest"] == one
    assert "annotations" not in entry


def test_a_referrer_that_goes_while_a_page_is_made_is_left_out(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = server.push_image("a", "t")
    kept, gone = (
        server.push_manifest("a", image(subject=subject(of), annotations={"n": n})) for n in "12"
    )
    ask = manifests.annotations_of
    monkeypatch.setattr(
        manifests, "annotations_of", lambda tx, name, _all: ask(tx, name, [kept, of])
    )
    assert gone
    assert [one["digest"] for one in referrers(server, of).json()["manifests"]] == [kept]


def test_a_deleted_referrer_is_not_listed(server: Server) -> None:
    of = server.push_image("a", "t")
    one = server.push_manifest("a", image(subject=subject(of)))
    server.ask("DELETE", f"/v2/a/manifests/{one}")
    assert referrers(server, of).json()["manifests"] == []


@pytest.mark.parametrize(
    "target",
    ["/v2/_catalog?n=1", "/v2/a/tags/list?n=1", "/v2/a/referrers/{digest}", "/v2/_oci/ext/discover",
     "/v2/a/_oci/ext/discover", "/v2/a/manifests/t", "/v2/a/blobs/{digest}", "/v2/", "/livez",
     "/v2/a/tags/list?n=x"],
)  # fmt: skip
def test_head_is_get_without_its_body(server: Server, target: str) -> None:
    server.push_image("b", "t")
    server.push_image("a", "s")
    server.push_image("a", "t")
    target = target.format(digest=server.push_blob("a", b"blob"))
    got, head = server.ask("GET", target), server.ask("HEAD", target)

    def lasting(answer: Answer) -> list[tuple[str, str]]:
        return [(name, value) for name, value in answer.headers if name != "x-request-id"]

    assert (head.status, lasting(head), head.body) == (got.status, lasting(got), b"")
    assert got.header("content-length") == str(len(got.body))
