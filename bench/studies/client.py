"""The client: whole processes beside crane, skopeo, oras and regctl, against the same registry."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Callable, Iterator

import inputs
import servers
from harness import (
    OURS,
    Attempt,
    Row,
    Stage,
    Study,
    Target,
    argosy,
    find,
    present,
    process,
    profiled,
)
from servers import Registry

QUIET = ("--progress", "none")
SKOPEO = ("skopeo", "--insecure-policy", "copy", "-q")


def peer() -> str:
    """The registry the clients talk to: distribution's, or else our own."""
    kinds = ("distribution", "docker-registry")
    return next((kind for kind in kinds if find(str(servers.KINDS[kind][0]))), OURS)


@contextlib.contextmanager
def registry(stage: Stage, *, filled: bool) -> Iterator[Registry]:
    """A registry, with the image `bench:v1` when it is to be filled."""
    with servers.several(stage, peer()) as found:
        (one,) = found.values()
        if filled:
            push = argosy("cp", *QUIET, f"oci:{inputs.opaque(stage)}:v1", f"{one.host}/bench:v1")
            process(push)
        yield one


@contextlib.contextmanager
def pull(stage: Stage) -> Iterator[dict[str, Attempt]]:
    """From the registry to a new layout."""
    with registry(stage, filled=True) as one, stage.folder() as folder:
        image, out = f"{one.host}/bench:v1", folder / "out"
        commands = present(
            {
                OURS: argosy("cp", *QUIET, image, f"oci:{out}:v1"),
                "crane": ["crane", "pull", "--format", "oci", image, str(out)],
                "skopeo": [*SKOPEO, "--src-tls-verify=false", f"docker://{image}", f"oci:{out}:v1"],
                "oras": ["oras", "cp", "--no-tty", "--from-plain-http", image, "--to-oci-layout", f"{out}:v1"],
                "regctl": ["regctl", "image", "copy", image, f"ocidir://{out}:v1"],
            }
        )  # fmt: skip

        def turn(command: list[str]) -> Attempt:
            def run() -> dict[str, float]:
                shutil.rmtree(out, ignore_errors=True)
                taken, memory = process(command)
                return {"pull": taken, "pull memory": memory}

            return run

        with plain(one):
            yield {name: turn(command) for name, command in commands.items()}


@contextlib.contextmanager
def plain(one: Registry) -> Iterator[None]:
    """Tell regctl, for a while, that the registry speaks HTTP."""
    import os
    import tempfile

    with tempfile.TemporaryDirectory() as home:
        before = os.environ.get("REGCTL_CONFIG")
        os.environ["REGCTL_CONFIG"] = f"{home}/config.json"
        try:
            if regctl := find("regctl"):
                process([regctl, "registry", "set", "--tls", "disabled", one.host])
            yield
        finally:
            os.environ.pop("REGCTL_CONFIG")
            if before is not None:
                os.environ["REGCTL_CONFIG"] = before


@contextlib.contextmanager
def push(stage: Stage) -> Iterator[dict[str, Attempt]]:
    """From a layout to the registry, which holds nothing of it."""
    layout = inputs.opaque(stage)
    with registry(stage, filled=False) as one:
        numbers = itertools.count()

        def commands() -> dict[str, list[str]]:
            to = f"{one.host}/push{next(numbers)}:v1"
            return present(
                {
                    OURS: argosy("cp", *QUIET, f"oci:{layout}:v1", to),
                    "crane": ["crane", "push", str(layout), to],
                    "skopeo": [*SKOPEO, "--dest-tls-verify=false", f"oci:{layout}:v1", f"docker://{to}"],
                    "oras": ["oras", "cp", "--no-tty", "--from-oci-layout", f"{layout}:v1", "--to-plain-http", to],
                    "regctl": ["regctl", "image", "copy", f"ocidir://{layout}:v1", to],
                }
            )  # fmt: skip

        def turn(name: str) -> Attempt:
            def run() -> dict[str, float]:
                shutil.rmtree(one.blobs, ignore_errors=True)
                shutil.rmtree(one.blobs.with_name("repositories"), ignore_errors=True)
                taken, memory = process(commands()[name])
                return {"push": taken, "push memory": memory}

            return run

        with plain(one):
            yield {name: turn(name) for name in commands()}


@contextlib.contextmanager
def mount(stage: Stage) -> Iterator[dict[str, Attempt]]:
    """Between two repositories of one registry."""
    numbers = itertools.count()
    with registry(stage, filled=True) as one, plain(one):
        image = f"{one.host}/bench:v1"

        def commands() -> dict[str, list[str]]:
            to = f"{one.host}/copy{next(numbers)}:v1"
            return present(
                {
                    OURS: argosy("cp", *QUIET, image, to),
                    "crane": ["crane", "cp", image, to],
                    "oras": ["oras", "cp", "--no-tty", "--from-plain-http", "--to-plain-http", image, to],
                    "regctl": ["regctl", "image", "copy", image, to],
                }
            )  # fmt: skip

        def turn(name: str) -> Attempt:
            return lambda: {"copy in a registry": process(commands()[name])[0] * 1000}

        yield {name: turn(name) for name in commands()}


@contextlib.contextmanager
def places(stage: Stage) -> Iterator[dict[str, Attempt]]:
    """Between places of this machine."""
    source = f"oci:{inputs.opaque(stage)}:v1"
    with stage.folder() as folder:
        target = folder / "target"
        name = "docker.io/library/app:v1"
        to = {
            "oci": f"oci:{target}:v1",
            "oci-archive": f"oci-archive:{target}:v1",
            "docker-archive": f"docker-archive:{target}:{name}",
            "dir": f"dir:{target}",
        }

        def turn(tool: str) -> Attempt:
            def run() -> dict[str, float]:
                got = {}
                for transport, place in to.items():
                    shutil.rmtree(target, ignore_errors=True)
                    target.unlink(missing_ok=True)
                    commands = {
                        OURS: argosy("cp", *QUIET, source, place),
                        "skopeo": [*SKOPEO, source, place],
                    }
                    got[f"copy to {transport}"] = process(present(commands)[tool])[0]
                return got

            return run

        yield {tool: turn(tool) for tool in (OURS, "skopeo") if tool == OURS or find(tool)}


@contextlib.contextmanager
def huge(stage: Stage) -> Iterator[dict[str, Attempt]]:
    """One layer of a gigabyte from a layout to an archive."""
    source = inputs.huge(stage)
    with stage.folder() as folder:
        target = folder / "copy.tar"

        def turn(command: list[str]) -> Attempt:
            def run() -> dict[str, float]:
                target.unlink(missing_ok=True)
                return {"copy memory": process(command)[1]}

            return run

        commands = present(
            {
                OURS: argosy("cp", *QUIET, f"oci:{source}:v1", f"oci-archive:{target}:v1"),
                "skopeo": [*SKOPEO, f"oci:{source}:v1", f"oci-archive:{target}:v1"],
            }
        )
        yield {name: turn(command) for name, command in commands.items()}


@contextlib.contextmanager
def digest(stage: Stage) -> Iterator[dict[str, Attempt]]:
    """The digest behind a tag of the registry."""
    with registry(stage, filled=True) as one, plain(one):
        image = f"{one.host}/bench:v1"
        commands = present(
            {
                OURS: argosy("digest", image),
                "crane": ["crane", "digest", image],
                "oras": ["oras", "resolve", "--plain-http", image],
                "regctl": ["regctl", "image", "digest", image],
            }
        )

        def turn(command: list[str]) -> Attempt:
            return lambda: {"digest": process(command)[0] * 1000}

        yield {name: turn(command) for name, command in commands.items()}


def where(*words: str) -> Callable[[Stage], str]:
    """The profile of a command; REMOTE is the image in the registry, LOCAL that in the layout, OUT a new place."""

    def profile(stage: Stage) -> str:
        with registry(stage, filled=True) as one, stage.folder() as folder:
            known = {
                "REMOTE": f"{one.host}/bench:v1",
                "OTHER": f"{one.host}/other:v1",
                "LOCAL": f"oci:{inputs.opaque(stage)}:v1",
                "OUT": f"oci:{folder}/out:v1",
            }
            if words[1] == "LOCAL":
                shutil.rmtree(one.blobs, ignore_errors=True)
            return profiled(*[known.get(word, word) for word in words])

    return profile


MEMORY = (Target(100),)

STUDIES = (
    Study(
        "pull",
        "An image of two layers, 370 MB that do not compress, from distribution to an OCI layout.",
        (
            Row("pull", "s", (Target(1, ("crane", "skopeo")),)),
            Row("pull memory", "MB", MEMORY),
        ),
        pull,
        ("registry", "crane", "skopeo", "oras", "regctl"),
        profile=where("cp", "REMOTE", "OUT", *QUIET),
    ),
    Study(
        "push",
        "The same image from an OCI layout to distribution, which holds none of it.",
        (
            Row("push", "s", (Target(1, ("crane", "skopeo")),)),
            Row("push memory", "MB", MEMORY),
        ),
        push,
        ("registry", "crane", "skopeo", "oras", "regctl"),
        profile=where("cp", "LOCAL", "OTHER", *QUIET),
    ),
    Study(
        "copy in a registry",
        "The same image to another repository of its registry: mounted, no bytes moved.",
        (Row("copy in a registry", "ms"),),
        mount,
        ("registry", "crane", "oras", "regctl"),
        runs=9,
        quick=3,
    ),
    Study(
        "copy",
        "The same image from an OCI layout to other places of this machine; argosy syncs what it wrote to disk.",
        tuple(
            Row(f"copy to {transport}", "s")
            for transport in ("oci", "oci-archive", "docker-archive", "dir")
        ),
        places,
        ("skopeo",),
        runs=3,
        quick=1,
    ),
    Study(
        "copy memory",
        "What copying a layer of 1 GB from a layout to an archive holds at most.",
        (Row("copy memory", "MB", (Target(80),)),),
        huge,
        ("skopeo",),
        runs=2,
        quick=1,
    ),
    Study(
        "digest",
        "`argosy digest REF`, the whole process, against distribution.",
        (Row("digest", "ms", (Target(80),)),),
        digest,
        ("registry", "crane", "oras", "regctl"),
        runs=15,
        quick=5,
        profile=where("digest", "REMOTE"),
    ),
)
