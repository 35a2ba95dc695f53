"""The world that the examples of `--help` and of the pages speak of: its registries, images and files."""

from __future__ import annotations

import dataclasses
import io
import os
import pathlib
import re
import subprocess
import sys
import tarfile

from argosy import Image, LayoutStore, Registry, copy
from argosy.content.memory import MemoryStore
from argosy.image import indexes
from argosy.image.configure import Changes
from argosy.image.derive import append_layer, mutate
from argosy.image.new import scratch
from argosy.image.view import ImageIndex
from argosy.remote.repository import Repository
from argosy.spec.platform import Platform
from argosy.testing.random import artifact
from tests.image.kit import file, folder, tar_of
from tests.image.test_source import package

PLATFORMS = dict.fromkeys(["linux/amd64", "linux/arm64", "linux/386", str(Platform.host())])
OF_THE_HUB = r"(?<= )(alpine|busybox|debian|nginx)(?=[:@, ]|$)"


def base(version: str, store: MemoryStore) -> ImageIndex:
    """An image of that version for several platforms, with files at places that everybody knows."""
    tar = tar_of(
        folder("etc"),
        file("etc/os-release", f"VERSION_ID={version}\n".encode()),
        folder("etc/ssl"),
        file("etc/ssl/cert.pem", b"-----BEGIN"),
        file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"),
        folder("srv"),
        folder("var"),
        folder("var/cache"),
        file("var/cache/apk", b"cached"),
    )
    images = [
        mutate(append_layer(scratch(store, Platform.parse(p)), io.BytesIO(tar)), Changes(cmd=["/bin/sh"]))
        for p in PLATFORMS
    ]  # fmt: skip
    return indexes.create(store, *images)


def app(below: ImageIndex, store: MemoryStore) -> ImageIndex:
    """An application upon a base, for the base's platforms, saying what it stands on."""
    tar = tar_of(folder("srv"), file("srv/app", b"#!/bin/sh\n", mode=0o755))
    images = [
        append_layer(image, io.BytesIO(tar))
        for image in below.images()
    ]  # fmt: skip
    return indexes.create(store, *images)


def stored() -> MemoryStore:
    """All images, tagged `alpine-3.19`, `alpine-3.20`, `app`, `one`, and an artifact that refers to `app`."""
    store = MemoryStore()
    old, new = base("3.19", store), base("3.20", store)
    made = app(old, store)
    for tag, view in {"alpine-3.19": old, "alpine-3.20": new, "app": made}.items():
        copy(view.source, view.digest, store, tag)
    one = Image.open(store, "app", Platform.host())
    copy(store, one.digest, store, "one")
    other = mutate(one, Changes(platform=Platform.parse("linux/riscv64")))
    copy(other.source, other.digest, store, "riscv64")
    artifact(store, 1, subject=store.resolve("app"), kind="application/spdx+json")
    artifact(store, 2, "models")
    return store


@dataclasses.dataclass
class World:
    """A directory to run examples in, and the names under which a registry is there.

    Attributes:
        folder: The working directory.
        host: The registry that plays every registry.
        name: What this world's repositories begin with, so that worlds share one registry.
    """

    folder: pathlib.Path
    host: str
    name: str

    def make(self, store: MemoryStore) -> None:
        """Put everything where the examples look for it."""
        self.folder.mkdir(parents=True)
        self._repositories(store)
        self._layouts(store)
        self._files(store)

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        """Have a shell run a line, once its names lead here."""
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.told(line)],
            cwd=self.folder,
            env={
                "PATH": f"{self.folder}/.bin:{os.environ['PATH']}",
                "HOME": f"{self.folder}/.home",
                "REGISTRY_AUTH_FILE": f"{self.folder}/.home/auth.json",  # root's is elsewhere
                "LC_ALL": "C.UTF-8",
                "PYTHONPATH": os.pathsep.join(sys.path),
                "ARGOSY_ROOT": f"{self.folder}/.engine",
                "ARGOSY_REGISTRY_DATA": f"{self.folder}/.registry",
                "HTTPS_PROXY": "http://localhost:9",  # nothing is asked beyond this machine
                "EDITOR": "sed -i s/3.19/3.18/",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
            check=False,
        )

    def told(self, line: str) -> str:
        """A line with the names of this world in the place of everybody's."""
        line = re.sub(
            r"\b(registry(?=\.example/)|mirror)\.example\b", rf"{self.host}/{self.name}/\1", line
        )
        line = re.sub(OF_THE_HUB, rf"{self.host}/{self.name}/hub/\1", line)
        line = re.sub(r"\b(registry\.example|docker\.io|localhost:5000)\b", self.host, line)
        return re.sub(r"(?<=[ =])/(srv|backup|run)(?=/)", rf"{self.folder}/.\1", line)

    def repository(self, registry: Registry, name: str) -> Repository:
        return registry.repository(f"{self.name}/{name}")

    def _repositories(self, store: MemoryStore) -> None:
        with Registry(self.host) as registry:
            alpine, own, mirror = (
                self.repository(registry, name) for name in ("hub/alpine", "registry/app", "mirror/alpine")
            )  # fmt: skip
            copy(store, "alpine-3.19", alpine, "3.18", "3.19")
            copy(store, "alpine-3.20", alpine, "3.20")
            copy(store, "alpine-3.19", mirror, "3.17.0")
            copy(store, "alpine-3.20", self.repository(registry, "hub/busybox"), "latest")
            copy(store, "app", own, "v1", "v2", referrers=True)
            copy(store, "riscv64", own, "riscv64")
            for name in ("amd64", "arm64"):
                copy(store, "app", own, name, platforms=[Platform.parse(f"linux/{name}")])
            for tag, version in {"1": "alpine-3.19", "2": "alpine-3.20"}.items():
                copy(store, version, self.repository(registry, "registry/base"), tag)
            copy(store, "models", self.repository(registry, "registry/models"), "v1")

    def _layouts(self, store: MemoryStore) -> None:
        images = LayoutStore.create(str(self.folder / "images"))
        copy(store, "app", images, "app", "v1", "v2", "v1.2.3", "old")
        copy(store, "alpine-3.20", images, "alpine")
        single = LayoutStore.create(str(self.folder / "a"))
        copy(store, "one", single, "v1")
        for name in ("amd64", "arm64"):
            copy(store, "app", single, name, platforms=[Platform.parse(f"linux/{name}")])
        LayoutStore.create(str(self.folder / "output"))
        ours = LayoutStore.create(str(self.folder / ".engine/images"))
        names = f"{self.host}/{self.name}"
        copy(store, "app", ours, f"{names}/registry/app:v1", platforms=[Platform.host()])
        copy(store, "alpine-3.20", ours, f"{names}/hub/alpine:3.20", platforms=[Platform.host()])

    def _files(self, store: MemoryStore) -> None:
        for name, text in {
            "etc/motd": "hello", "patches/1.patch": "+", "extra/notes": "more", "public/index.html": "<html>", "app/run": "",
            "sbom.json": "{}", "config.json": "{}", "annotations.json": "{}", "note.txt": "checked", "card.md": "# card", "password": "secret",
            "model.bin": "weights", "vendor.tar.gz": "vendored",
            "registry.yaml": "access: {policy: policy.yaml, htpasswd: users}", "policy.yaml": "{}", "users": "",
            "manifest.json": store.fetch(store.resolve("one")).read().decode(),
            "sync.yaml": f'"{self.host}": {{images: {{{self.name}/registry/app: [v1]}}}}',
            ".bin/argosy": f'#!/bin/sh\nexec {sys.executable} -m argosy "$@"\n',
            ".home/.config/fish/completions/none": "", "SRPMS/bash-5.2-1.src.rpm": "",
            "mirror.yaml": self.told(
                "- {source: alpine, target: mirror.example/alpine, semver: ^3.18, prune: true}"
            ),
        }.items():  # fmt: skip
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (self.folder / "SRPMS/bash-5.2-1.src.rpm").write_bytes(package())
        for name, mode in {"files.tar": "w", "layer.tar": "w", "layer.tar.gz": "w:gz"}.items():
            with tarfile.open(self.folder / name, mode) as tar:  # type: ignore[call-overload]
                tar.add(self.folder / "app", "app")
        (self.folder / ".bin/argosy").chmod(0o755)
