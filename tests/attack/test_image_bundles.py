"""An image's configuration is a stranger's: it must not make a bundle reach out to the host."""

from __future__ import annotations

import io
import json
import os
import pathlib

import pytest

from argosy.bundle.convert import UNSAFE_ANNOTATIONS, runtime_config, unsafe_labels
from argosy.bundle.unpack import unpack
from argosy.cli.main import call
from argosy.content.copy import copy
from argosy.content.memory import MemoryStore
from argosy.errors import (
    InvalidConfigError,
    InvalidManifestError,
    LimitExceededError,
    NotFoundError,
)
from argosy.image.configure import Changes
from argosy.image.contents import Contents, write_flat
from argosy.image.derive import derive, mutate
from argosy.image.edit import with_manifest
from argosy.image.view import Image, view
from argosy.layer.options import Options
from argosy.layout.store import LayoutStore
from argosy.spec import mediatypes
from argosy.spec.annotations import BASE_DIGEST, BASE_NAME
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.testing import random
from tests.image.kit import file, image_of, link, tar_of

OPTIONS = Options(rootless=os.geteuid() != 0)


def test_cve_2022_23648_a_volume_behind_a_link_brings_nothing_of_the_host_along(
    tmp_path: pathlib.Path,
) -> None:
    host = tmp_path / "host"
    host.mkdir()
    (host / "secret").write_text("secret")
    image = image_of(
        tar_of(link("vol", str(host)), link("up", "../" * 20 + str(host))), volumes=["/vol", "/up"]
    )
    bundle = unpack(image, str(tmp_path / "b"), OPTIONS)
    found = [
        os.path.join(place, name) for place, _, names in os.walk(bundle.path) for name in names
    ]
    assert not [path for path in found if path.endswith("secret")]
    for mount in bundle.config()["mounts"]:
        if mount["destination"] in ("/vol", "/up"):
            assert (mount["type"], mount["source"]) == ("tmpfs", "tmpfs")


@pytest.mark.parametrize("volume", ["/", "/..", "relative", "/../../etc"])
def test_cve_2022_23648_a_volume_cannot_be_the_root_or_outside_of_it(volume: str) -> None:
    config = image_of(volumes=[volume]).config
    try:
        made = runtime_config(config)
    except InvalidConfigError:
        return
    destination = made["mounts"][-1]["destination"]
    assert destination.startswith("/")
    assert ".." not in destination
    assert destination != "/"


@pytest.mark.parametrize(
    "label",
    [
        "org.systemd.property.ExecStartPre",
        "org.criu.config",
        "run.oci.hooks.stderr",
        "run.oci.handler",
        "containerd.io/restart.loguri",
        "io.kubernetes.cri-o.userns-mode",
        "io.kubernetes.cri.container-type",
        "io.katacontainers.config.hypervisor.path",
        "cdi.k8s.io/all",
        "bundle",
    ],
)
def test_cve_2026_53488_and_53492_a_label_does_not_become_a_command_or_device_of_the_host(
    label: str,
) -> None:
    config = image_of(labels={label: "binary:///bin/sh?-c=id", "maintainer": "me"}).config
    annotations = runtime_config(config)["annotations"]
    assert label not in annotations
    assert annotations["maintainer"] == "me"
    assert unsafe_labels(config.execution.labels) == (label,)
    assert runtime_config(config, trust_labels=True)["annotations"][label].startswith("binary:")


@pytest.mark.parametrize("user", ["", "1000"])
def test_cve_2022_24769_no_capability_is_inheritable_or_ambient(user: str) -> None:
    capabilities = runtime_config(image_of(user=user).config)["process"]["capabilities"]
    assert not capabilities.get("inheritable")
    assert not capabilities.get("ambient")


def test_labels_that_only_look_alike_stay() -> None:
    labels = {"bundle.version": "1", "org.example.run.oci.x": "2", "org.criu": "3"}
    assert unsafe_labels(labels) == ()
    assert all(UNSAFE_ANNOTATIONS)


def test_cve_2023_25153_a_manifest_or_configuration_that_claims_gigabytes_is_not_read() -> None:
    class Endless(MemoryStore):
        def fetch(self, desc):  # type: ignore[no-untyped-def]
            if desc.size > 1 << 30:
                raise AssertionError("it was read")
            return super().fetch(desc)

    huge = Descriptor(media_type=mediatypes.OCI_CONFIG, digest=Digest.of(b"x"), size=1 << 40)
    image = derive(image_of(tar_of(file("a")), store=Endless()), config_descriptor=huge)
    with pytest.raises(LimitExceededError):
        _ = image.raw_config
    manifest = Descriptor(media_type=mediatypes.OCI_MANIFEST, digest=Digest.of(b"x"), size=1 << 40)
    with pytest.raises(LimitExceededError):
        _ = Image(source=Endless(), descriptor=manifest).raw


def test_cve_2021_41103_a_bundle_cannot_be_entered_by_others(tmp_path: pathlib.Path) -> None:
    """Without it, anybody could run the image's set-user-id programs."""
    bundle = unpack(image_of(tar_of(file("su", b"x", mode=0o4755))), str(tmp_path / "b"), OPTIONS)
    assert os.stat(bundle.path).st_mode & 0o077 == 0


def test_a_bundle_is_not_written_through_a_link(tmp_path: pathlib.Path) -> None:
    """The directory of a bundle may be there, and somebody else may have prepared it."""
    (tmp_path / "b").mkdir()
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "b/config.json").symlink_to(tmp_path / "victim")
    with pytest.raises(Exception, match="exists already"):
        unpack(image_of(tar_of(file("a"))), str(tmp_path / "b"), OPTIONS)
    assert (tmp_path / "victim").read_text() == "precious"


def test_cve_2018_15664_copying_out_of_an_image_never_follows_a_link_to_the_host(
    tmp_path: pathlib.Path,
) -> None:
    """Docker resolved the path first and opened it later, while a container changed it."""
    host = tmp_path / "host"
    host.mkdir()
    (host / "secret").write_text("secret")
    image = image_of(
        tar_of(
            link("dir", str(host)),
            link("up", "../" * 20 + str(host)),
            link("file", f"{host}/secret"),
        )
    )
    contents = Contents(image)
    for path in ("/dir/secret", "/up/secret", "/file", "dir/../../../" + str(host) + "/secret"):
        with pytest.raises(NotFoundError):
            b"".join(contents.content(path))
    out = io.BytesIO()
    write_flat(contents, out)
    assert b"secret" not in out.getvalue().replace(b"/secret", b"")


def test_cve_2021_41190_a_document_that_is_both_an_index_and_a_manifest_is_refused() -> None:
    store = MemoryStore()
    image = image_of(tar_of(file("a")), store=store)
    both = {**json.loads(image.raw), "manifests": []}
    for media_type in (mediatypes.OCI_MANIFEST, mediatypes.OCI_INDEX):
        raw = json.dumps({**both, "mediaType": media_type}).encode()
        desc = store.add(media_type, raw)
        opened = view(store, str(desc.digest))
        with pytest.raises(InvalidManifestError):
            _ = opened.manifest if isinstance(opened, Image) else opened.index
        with pytest.raises(InvalidManifestError):
            with_manifest(image, raw)
    # The same bytes under the other media type.
    confused = store.add(mediatypes.OCI_INDEX, image.raw)
    with pytest.raises(InvalidManifestError):
        Image.open(store, str(confused.digest))


def test_a_base_named_by_a_stranger_is_never_a_file_of_this_machine(tmp_path: pathlib.Path) -> None:
    """`rebase` without options looks where the image's annotations say."""
    secret = LayoutStore.create(str(tmp_path / "secret"))
    base = random.image(secret, 1, "v1")
    place = LayoutStore.create(str(tmp_path / "place"))
    for name in (f"oci:{tmp_path / 'secret'}:v1", str(tmp_path / "secret"), "./secret", "-"):
        made_from = Image(source=secret, descriptor=base)
        notes = {BASE_NAME: name, BASE_DIGEST: str(base.digest)}
        image = mutate(made_from, Changes(annotations=notes))
        copy(image.source, str(image.digest), place, "app")
        assert call(["rebase", f"oci:{tmp_path / 'place'}:app", "-t", "rebased"]) != 0
    assert list(place.tags()) == ["app"]
