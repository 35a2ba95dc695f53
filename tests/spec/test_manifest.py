"""Manifests and indexes: what is read, refused and kept."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.errors import (
    ArgosyError,
    InvalidDigestError,
    InvalidManifestError,
    LimitExceededError,
    UnsupportedError,
)
from argosy.spec import mediatypes as mt
from argosy.spec.descriptor import EMPTY, Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import (
    ArtifactManifest,
    Index,
    Manifest,
    check_types,
    decode_manifest,
    problems,
)
from argosy.spec.platform import Platform

D = {"mediaType": mt.OCI_CONFIG, "digest": str(Digest.of(b"c")), "size": 1}
L = {"mediaType": mt.OCI_LAYER_GZIP, "digest": str(Digest.of(b"l")), "size": 2}
M = {"mediaType": mt.OCI_MANIFEST, "digest": str(Digest.of(b"m")), "size": 3}
IMAGE: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": mt.OCI_MANIFEST,
    "config": D,
    "layers": [L],
}
INDEX: dict[str, Any] = {"schemaVersion": 2, "mediaType": mt.OCI_INDEX, "manifests": [M]}
WITHDRAWN: dict[str, Any] = {
    "mediaType": mt.OCI_ARTIFACT_MANIFEST,
    "artifactType": "application/x.sbom",
    "blobs": [L],
    "subject": M,
    "annotations": {"a": "1"},
    "x-more": 1,
}


def raw(value: object) -> bytes:
    return json.dumps(value).encode()


text = st.text(max_size=12)
descriptors = st.builds(
    Descriptor,
    media_type=st.sampled_from(
        [mt.OCI_LAYER_GZIP, mt.OCI_CONFIG, "application/x.y+json", mt.OCI_MANIFEST]
    ),
    digest=st.binary(max_size=4).map(Digest.of),
    size=st.integers(0, 1 << 62),
    urls=st.lists(text, max_size=2).map(tuple),
    annotations=st.dictionaries(text, text, max_size=2),
    data=st.none() | st.binary(max_size=8),
    artifact_type=st.none() | st.just("application/x.thing"),
    platform=st.none()
    | st.just(Platform(architecture="arm", os="linux", variant="v7", extra={"features": ["x"]})),
    extra=st.dictionaries(text.map(lambda s: f"x-{s}"), st.integers() | text, max_size=2),
)
manifests = st.builds(
    Manifest,
    artifact_type=st.none() | st.just("application/x.thing"),
    config=descriptors,
    layers=st.lists(descriptors, max_size=3).map(tuple),
    subject=st.none() | descriptors,
    annotations=st.dictionaries(text, text, max_size=2),
    extra=st.dictionaries(text.map(lambda s: f"x-{s}"), st.integers() | text, max_size=2),
)
indexes = st.builds(
    Index, manifests=st.lists(descriptors, max_size=3).map(tuple), subject=st.none() | descriptors
)


@given(manifests | indexes)
def test_what_is_encoded_is_decoded(value: Manifest | Index) -> None:
    assert decode_manifest(value.encode()) == value


unknown = st.dictionaries(
    st.text(max_size=12).map(lambda s: f"x-{s}"),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(text, inner, max_size=2),
        max_leaves=5,
    ),
    max_size=2,
)  # fmt: skip


@given(unknown, unknown, unknown, unknown)
def test_unknown_properties_survive_everywhere(
    top: dict[str, Any], config: dict[str, Any], layer: dict[str, Any], platform: dict[str, Any]
) -> None:
    image = IMAGE | {"config": D | config, "layers": [L | layer]} | top
    assert json.loads(decode_manifest(raw(image)).encode()) == image
    where = {"architecture": "arm", "os": "linux"} | platform
    index = INDEX | {"manifests": [M | layer | {"platform": where}], "subject": M | config} | top
    assert json.loads(decode_manifest(raw(index)).encode()) == index


@pytest.mark.parametrize(
    ("value", "media_type", "told"),
    [
        (IMAGE | {"manifests": []}, None, "both 'manifests' and 'layers' or 'config'"),
        (INDEX | {"layers": []}, None, "both"),
        (IMAGE, mt.OCI_INDEX, "mediaType: expected"),
        (INDEX, mt.OCI_MANIFEST, "mediaType: expected"),
        ({k: v for k, v in IMAGE.items() if k != "mediaType"}, mt.OCI_INDEX, "cannot have config"),
        (IMAGE | {"schemaVersion": 3}, None, "schemaVersion: expected 2, got 3"),
        (IMAGE | {"config": None}, None, "config: this property is required"),
        (IMAGE | {"layers": {}}, None, "layers: expected an array, got an object"),
        (IMAGE | {"layers": [L, D | {"size": -1}]}, None, "layers[1].size"),
        (IMAGE | {"layers": [D | {"size": 1.5}]}, None, "layers[0].size"),
        (IMAGE | {"layers": [D | {"size": True}]}, None, "layers[0].size"),
        (IMAGE | {"layers": [D | {"size": 1 << 63}]}, None, "layers[0].size"),
        (IMAGE | {"layers": [D | {"digest": "sha256:x"}]}, None, "layers[0].digest"),
        (IMAGE | {"layers": [D | {"mediaType": "x"}]}, None, "layers[0].mediaType"),
        (IMAGE | {"mediaType": "a/b\n" + "c" * 5000}, None, "mediaType: expected a media type"),
        (IMAGE | {"layers": [D | {"data": "!"}]}, None, "layers[0].data: not Base 64"),
        (IMAGE | {"artifactType": "x"}, None, "artifactType: expected a media type"),
        (INDEX | {"manifests": [M | {"mediaType": f"{mt.OCI_MANIFEST};a=b"}]}, None, "mediaType"),
        (INDEX | {"manifests": [M | {"mediaType": f"{mt.OCI_INDEX} ; a=b"}]}, None, "mediaType"),
        (IMAGE | {"artifactType": "x/y "}, None, "artifactType: expected a media type"),
        (IMAGE | {"artifactType": "x/y;"}, None, "artifactType: expected a media type"),
        (IMAGE | {"artifactType": "x/y; a=b\n"}, None, "artifactType: expected a media type"),
        (IMAGE | {"artifactType": "x/y" + ";a=b" * 300}, None, "artifactType: expected a media"),
        (IMAGE | {"schemaVersion": 2.0}, None, "schemaVersion: expected a whole number, got 2.0"),
        (IMAGE | {"annotations": {"a": 1}}, None, "annotations.a: expected a string, got a number"),
        (INDEX | {"manifests": None}, None, "manifests: this property is required"),
        (
            INDEX | {"manifests": [M | {"platform": {"os": "linux"}}]},
            None,
            "manifests[0].platform.architecture",
        ),
        (
            INDEX | {"manifests": [M | {"platform": {"architecture": "arm"}}]},
            None,
            "manifests[0].platform.os",
        ),
        ({"schemaVersion": 2}, None, "neither"),
        (WITHDRAWN | {"config": D}, None, "cannot have config or layers"),
        (WITHDRAWN | {"manifests": [M]}, None, "cannot have manifests"),
        (WITHDRAWN | {"mediaType": mt.OCI_MANIFEST}, None, "config: this property is required"),
        (WITHDRAWN, mt.OCI_MANIFEST, "mediaType: expected"),
        (WITHDRAWN | {"blobs": [L | {"size": -1}]}, None, "blobs[0].size"),
        (WITHDRAWN | {"blobs": [L] * 10_001}, None, "10001 entries are over the limit"),
        ([], None, "expected a JSON object"),
    ],
)
def test_what_breaks_the_specification_is_refused_with_its_property(
    value: object, media_type: str | None, told: str
) -> None:
    with pytest.raises(InvalidManifestError) as caught:
        decode_manifest(raw(value), media_type)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("value", "media_type"),
    [
        ({"schemaVersion": 1, "fsLayers": []}, None),
        ({"schemaVersion": 1}, mt.DOCKER_SCHEMA1_SIGNED),
        (IMAGE | {"mediaType": "application/x.unknown"}, None),
    ],
)
def test_formats_argosy_does_not_read_are_named(value: object, media_type: str | None) -> None:
    with pytest.raises(UnsupportedError):
        decode_manifest(raw(value), media_type)


def test_parameters_of_a_content_type_do_not_count() -> None:
    assert isinstance(decode_manifest(raw(IMAGE), f"{mt.OCI_MANIFEST}; charset=utf-8"), Manifest)


def test_docker_manifests_are_read_as_the_same_values() -> None:
    value = IMAGE | {"mediaType": mt.DOCKER_MANIFEST}
    assert decode_manifest(raw(value), mt.DOCKER_MANIFEST).media_type == mt.DOCKER_MANIFEST
    assert isinstance(decode_manifest(raw(INDEX | {"mediaType": mt.DOCKER_LIST})), Index)


def test_a_manifest_without_a_media_type_takes_that_of_its_descriptor() -> None:
    value = {k: v for k, v in IMAGE.items() if k != "mediaType"}
    assert decode_manifest(raw(value)).media_type == mt.OCI_MANIFEST
    assert decode_manifest(raw(value), mt.DOCKER_MANIFEST).media_type == mt.DOCKER_MANIFEST


def test_too_many_entries_are_refused() -> None:
    with pytest.raises(InvalidManifestError):
        decode_manifest(raw(IMAGE | {"layers": [L] * 10_001}))


def test_too_many_bytes_are_refused() -> None:
    with pytest.raises(LimitExceededError):
        decode_manifest(b"x" * 20, limit=10)


@given(
    st.recursive(
        st.none() | st.integers() | text,
        lambda i: (
            st.lists(i)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "config",
                        "layers",
                        "manifests",
                        "mediaType",
                        "digest",
                        "size",
                        "schemaVersion",
                    ]
                ),
                i,
            )
        ),
        max_leaves=10,
    )
)
def test_no_document_crashes(value: object) -> None:
    with contextlib.suppress(ArgosyError):
        decode_manifest(raw(value))


def test_parameters_of_media_types_are_kept_and_told() -> None:
    odd = "application/x.bundle+json;version=0.2"
    image = IMAGE | {"artifactType": odd, "config": D | {"mediaType": odd}, "layers": [L]}
    index = INDEX | {"manifests": [M | {"artifactType": 'text/plain; charset="utf-8"'}]}
    for value, where in (
        (image, ["artifactType", "config.mediaType"]),
        (index, ["manifests[0].artifactType"]),
    ):
        read = decode_manifest(raw(value))
        assert json.loads(read.encode()) == value
        assert [line.split(":")[0] for line in problems(read)] == where
        with pytest.raises(InvalidManifestError, match="has parameters"):
            check_types(read)


def test_problems_of_portability_are_told() -> None:
    assert list(problems(Manifest(config=EMPTY, layers=(EMPTY,)))) == [
        "artifactType: must be set where config.mediaType is the empty value"
    ]
    assert list(problems(Manifest(config=EMPTY, artifact_type="a/b"))) == [
        "layers: should have at least one entry"
    ]
    inner = Descriptor.of(mt.OCI_MANIFEST, b"{}")
    assert list(problems(Manifest(config=inner, layers=(inner,)))) == [
        f"config.mediaType: {mt.OCI_MANIFEST} is a manifest"
    ]
    assert list(problems(Index(manifests=(inner, EMPTY)))) == [
        f"manifests[1].mediaType: {mt.OCI_EMPTY} is no manifest"
    ]


def test_a_withdrawn_artifact_manifest_is_read_and_kept_as_it_is() -> None:
    for value in (WITHDRAWN, {"mediaType": mt.OCI_ARTIFACT_MANIFEST}):
        read = decode_manifest(raw(value))
        assert isinstance(read, ArtifactManifest)
        assert json.loads(read.encode()) == value
    read = decode_manifest(raw(WITHDRAWN))
    assert [str(child.digest) for child in read.children()] == [L["digest"]]
    assert read.kind == "application/x.sbom"
    (told,) = problems(read)
    assert "was withdrawn" in told


def test_the_empty_descriptor_is_that_of_the_specification() -> None:
    assert EMPTY.encode() == {
        "mediaType": "application/vnd.oci.empty.v1+json",
        "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        "size": 2,
        "data": "e30=",
    }


def test_a_descriptor_takes_its_digest_as_text_and_refuses_what_is_none() -> None:
    text = str(EMPTY.digest)
    made = Descriptor(media_type=EMPTY.media_type, digest=text, size=2)  # type: ignore[arg-type]
    assert made == EMPTY.bare()
    assert made.digest.algorithm == "sha256"
    with pytest.raises(InvalidDigestError, match="nope"):
        Descriptor(media_type=EMPTY.media_type, digest="nope", size=2)  # type: ignore[arg-type]
