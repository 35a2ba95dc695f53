"""`make demo`: the main job from end to end, on this machine alone. Every step prints the command that does it.

An image is made from this machine's own programs, so nothing is downloaded. Everything happens in one temporary
directory, which is removed in the end, and on loopback.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from argosy.content.copy import copy
from argosy.content.memory import MemoryStore
from argosy.layout.store import LayoutStore
from argosy.spec import mediatypes
from argosy.testing.hostimage import host_image

_SHOWN = 14
_DISK = "/var/tmp"  # noqa: S108 - not /tmp: an overlay may not lie on another one, as /tmp may
_TYPES = {
    mediatypes.DOCKER_MANIFEST: mediatypes.OCI_MANIFEST,
    mediatypes.DOCKER_CONFIG: mediatypes.OCI_CONFIG,
    mediatypes.DOCKER_LAYER_GZIP: mediatypes.OCI_LAYER_GZIP,
}
_SBOM = {
    "spdxVersion": "SPDX-2.3",
    "SPDXID": "SPDXRef-DOCUMENT",
    "name": "demo",
    "packages": [{"name": "dash", "SPDXID": "SPDXRef-dash", "downloadLocation": "NOASSERTION"}],
}


class Demo:
    """One run in one directory."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.number = 0
        self.env = {
            **os.environ,
            "ARGOSY_ROOT": os.path.join(folder, "engine"),
            "ARGOSY_PROGRESS": "none",
        }
        self.env.pop("ARGOSY_RUNTIME", None)

    def title(self, text: str) -> None:
        """Say what comes."""
        self.number += 1
        print(
            f"\n\x1b[1m{self.number}. {text}\x1b[0m"
            if sys.stdout.isatty()
            else f"\n{self.number}. {text}"
        )

    def do(self, line: str, *, code: int = 0, show: bool = True, stdin: str | None = None) -> str:
        """Print a command line and run it.

        Raises:
            SystemExit: it failed; its own words are printed.
        """
        print(f"   $ {line}")
        words = [sys.executable if w == "argosy" else w for w in line.split(" ")]
        if words[0] == sys.executable:
            words[1:1] = ["-m", "argosy"]
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=self.env,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != code:
            raise SystemExit(
                f"{done.stdout}{done.stderr}\nthe demo failed: {line} exited with {done.returncode}"
            )
        if show:
            self._show(done.stdout)
        return done.stdout

    def _show(self, text: str) -> None:
        lines = text.rstrip().splitlines()
        for line in lines[:_SHOWN]:
            print(f"     {line}")
        if len(lines) > _SHOWN:
            print(f"     … {len(lines) - _SHOWN} lines more")


@contextlib.contextmanager
def _registry(demo: Demo) -> Iterator[str]:
    """`argosy serve` on a free port, until the block ends."""
    print("   $ argosy serve --data registry --port 0")
    process = subprocess.Popen(
        [sys.executable, "-m", "argosy", "serve", "--data", "registry", "--port", "0"],
        cwd=demo.folder, env=demo.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if "http://" not in line:
            raise SystemExit("the demo failed: the registry did not start")
        print(f"     {line.strip()}")
        yield line.strip().rpartition("http://")[2]
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def main() -> None:
    """Run the demonstration."""
    begun = time.monotonic()
    folder = tempfile.mkdtemp(prefix="argosy-demo-", dir=_DISK if os.path.isdir(_DISK) else None)
    try:
        _run(Demo(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\nDone in {time.monotonic() - begun:.1f} seconds; nothing is left.")


def _run(demo: Demo) -> None:
    demo.title(
        "An image, made from this machine's own shell and the libraries its ELF headers name"
    )
    print("   >>> image = host_image(MemoryStore(), ['sh', 'cat', 'ls', 'id'], message='…')")
    print("   >>> copy(image.source, image.descriptor.digest, LayoutStore.create('image'), 'v1')")
    image = host_image(
        MemoryStore(), ("sh", "cat", "ls", "id"), message="Hello from a verified container."
    )
    copy(
        image.source,
        image.descriptor.digest,
        LayoutStore.create(os.path.join(demo.folder, "image")),
        "v1",
    )
    demo.do("argosy inspect oci:image:v1")

    demo.title("The same image in every kind of place; its digest stays")
    for place in ("oci-archive:image.tar:v1", "docker-archive:docker.tar:demo/app:v1", "dir:plain"):
        demo.do(f"argosy cp oci:image:v1 {place}")
        demo.do(f"argosy digest {place}")
    demo.do("argosy validate oci-archive:image.tar:v1")

    demo.title("A registry")
    with _registry(demo) as registry:
        _with_registry(demo, f"{registry}/demo/app", f"{registry}/demo/second")

    demo.title("A container, from the image that was pulled and verified")
    reason = _cannot_run(demo)
    if reason:
        print(f"   This machine cannot run containers here: {reason}")
        return
    name = json.loads(demo.do("argosy images --json", show=False))[0]["Name"]
    demo.do(f"argosy run --rm --network none {name} cat /etc/motd")
    reason = _cannot_run(demo, "-u", "nobody")
    if reason:
        print(f"   Containers have one user here, you as root: {reason}")
        return
    demo.do(f"argosy run --rm --network none --read-only -u nobody {name} id")


def _with_registry(demo: Demo, app: str, second: str) -> None:
    _look(demo, app)
    _retype(demo, app)
    _refer(demo, app, second)

    demo.title("Delete one tag; its siblings stay")
    demo.do(f"argosy tag {app}:v1 v1.0 latest")
    demo.do(f"argosy rm {app}:v1")
    demo.do(f"argosy ls {app}")

    demo.title("Pull into a fresh store, and verify")
    demo.do(f"argosy pull {second}:v1", show=False)
    demo.do("argosy images --digests")
    demo.do("argosy validate --all-tags oci:engine/images")


def _look(demo: Demo, app: str) -> None:
    demo.title("Push, look at it, draw it, and have every digest explained")
    demo.do(f"argosy push oci:image:v1 {app}:v1", show=False)
    demo.do(f"argosy manifest get {app}:v1")
    demo.do(f"argosy config {app}:v1")
    demo.do(f"argosy graph {app}:v1")
    demo.do(f"argosy explain {app}:v1")


def _retype(demo: Demo, app: str) -> None:
    demo.title("Docker's media types, and back to OCI by editing the manifest")
    demo.do(f"argosy convert --format docker {app}:v1 -t {app}:docker", show=False)
    edited = demo.do(f"argosy manifest get {app}:docker")
    for docker, oci in _TYPES.items():
        edited = edited.replace(docker, oci)
    print("   (docker's names replaced by OCI's, as with sed)")
    demo.do(f"argosy manifest put {app}:edited", stdin=edited)


def _refer(demo: Demo, app: str, second: str) -> None:
    demo.title("An artifact that refers to the image: a small SBOM")
    with open(os.path.join(demo.folder, "sbom.json"), "w", encoding="utf-8") as file:
        json.dump(_SBOM, file)
    demo.do(f"argosy attach {app}:v1 --artifact-type application/spdx+json sbom.json")
    demo.do(f"argosy discover {app}:v1")

    demo.title("By digest into a second repository: mounted, no layer moves")
    digest = demo.do(f"argosy digest {app}:v1", show=False).strip()
    demo.do(f"argosy cp --referrers {app}@{digest} {second}:v1")
    demo.do(f"argosy discover {second}:v1")


def _cannot_run(demo: Demo, *options: str) -> str:
    """Why this machine cannot run a container with these options, or nothing."""
    name = json.loads(
        subprocess.run(
            [sys.executable, "-m", "argosy", "images", "--json"],
            cwd=demo.folder, env=demo.env, capture_output=True, text=True, check=True,
        ).stdout
    )[0]["Name"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "argosy", "run", "-q", "--rm", "--network", "none", *options, name, "sh", "-c", ":"],
        cwd=demo.folder, env=demo.env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return (
        "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no reason given"])[0]
    )


if __name__ == "__main__":
    main()
