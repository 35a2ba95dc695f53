"""`argosy inspect`: what an image is."""

from __future__ import annotations

import contextlib
from typing import Any

import click

from argosy.cli import places
from argosy.cli.options import json_option, place_argument, platform_option
from argosy.cli.output import document, raw, size, table
from argosy.cli.template import Names, render
from argosy.content import graph
from argosy.content.protocols import Source
from argosy.content.workers import each
from argosy.errors import NotFoundError, UsageError
from argosy.image.view import Image
from argosy.locate import Location
from argosy.spec.descriptor import Descriptor
from argosy.spec.manifest import Manifest
from argosy.spec.platform import Platform


@click.command()
@place_argument
@platform_option
@click.option(
    "--raw", "as_stored", is_flag=True, help="Print the manifest or index, byte for byte."
)
@click.option(
    "--config", is_flag=True, help="Print the configuration, byte for byte; also with --raw."
)
@click.option("--tags", is_flag=True, help="List all tags of the place, too.")
@click.option(
    "-f",
    "--format",
    "template",
    metavar="TEMPLATE",
    help="Print fields by a template of Go's, as in {{.Digest}} or {{json .Env}}; json is --json.",
)
@json_option
def command(
    place: Location,
    platform: Platform | None,
    as_stored: bool,
    config: bool,
    tags: bool,
    template: str | None,
    as_json: bool,
) -> None:
    """Show what an image is: its digest, platforms, size, layers, and what it runs.

    An index is shown with its platforms; --platform shows one of its images. The field names of --json are
    skopeo's, with Size, ImageID, Manifests and Platform added.

    \b
    Examples:
      argosy inspect alpine:3.20
      argosy inspect --platform linux/arm64 --json oci:images:alpine
      argosy inspect -f '{{.Digest}} {{.Size}}' oci:images:alpine
      argosy inspect --platform linux/arm64 -f '{{index .Labels "org.opencontainers.image.version"}}' alpine:3.20
    """
    if (config or as_stored) and template is not None:
        raise UsageError(
            "--format is about what --json shows, and --raw and --config print bytes as they are",
            hint="leave one of the two out, or pipe the bytes to jq",
        )
    with places.image(place, platform, single=config) as (source, desc):
        if config:  # --raw --config is skopeo's way to say this
            raw(Image(source=source, descriptor=desc).raw_config)
            return
        if as_stored:
            raw(graph.read(source, desc))
            return
        facts = _facts(place, source, desc)
        if tags:
            facts["RepoTags"] = list(source.tags())
    if template not in {None, "json"}:
        print(render(template, facts))
    elif as_json or template:
        document(facts)
    else:
        _print(facts)


def _facts(place: Location, source: Source, desc: Descriptor) -> dict[str, Any]:
    name = place.reference.repository if place.reference else str(place)
    facts: dict[str, Any] = {"Name": name, "Digest": desc.digest, "MediaType": desc.media_type}
    if desc.is_index():
        entries = graph.read_index(source, desc).manifests
        told = each(lambda entry: _entry(source, entry), entries, jobs=places.jobs(place))
        facts["Manifests"] = told
        facts["Size"] = sum(entry["Size"] for entry in told)
        return facts
    return facts | _image_facts(Image(source=source, descriptor=desc))


def _entry(source: Source, entry: Descriptor) -> dict[str, Any]:
    total = entry.size
    if entry.is_manifest() and not entry.is_index():
        with contextlib.suppress(NotFoundError):  # a sparse index lists images that are not here
            total += sum(c.size for c in graph.read_manifest(source, entry).children())
    return {
        "Platform": str(entry.platform) if entry.platform else None,
        "Digest": entry.digest,
        "MediaType": entry.media_type,
        "ArtifactType": entry.artifact_type,
        "Size": total,
        "Annotations": Names(entry.annotations),
    }


def _image_facts(image: Image) -> dict[str, Any]:
    manifest = image.document
    facts: dict[str, Any] = {
        "ImageID": manifest.config.digest if isinstance(manifest, Manifest) else None,
        "Size": sum(layer.size for layer in manifest.layers),
        "Layers": [layer.digest for layer in manifest.layers],
        "LayersData": [
            {
                "MIMEType": layer.media_type,
                "Digest": layer.digest,
                "Size": layer.size,
                "Annotations": Names(layer.annotations) or None,
            }
            for layer in manifest.layers
        ],
        "Annotations": Names(manifest.annotations),
    }
    if manifest.subject is not None:
        facts["Subject"] = manifest.subject.digest
    if not image.is_image:
        return {"ArtifactType": manifest.kind, **facts}
    config = image.config
    return {
        "Created": config.created,
        "Platform": str(config.platform),
        "Architecture": config.architecture,
        "Variant": config.variant,
        "Os": config.os,
        "Labels": Names(config.execution.labels),
        "Env": list(config.execution.env),
        "Entrypoint": list(config.execution.entrypoint or ()),
        "Cmd": list(config.execution.cmd or ()),
        "User": config.execution.user,
        "WorkingDir": config.execution.working_dir,
        **facts,
    }


def _print(facts: dict[str, Any]) -> None:
    """The same for people: one fact a line, then a table."""
    listed = facts.pop("Manifests", None)
    layers = facts.pop("LayersData", None)
    facts.pop("Layers", None)
    rows = [
        (key, size(value) if key == "Size" else _plain(value))
        for key, value in facts.items()
        if value not in (None, "", [], {})
    ]
    table(rows)
    if listed:
        print()
        table(
            [
                (e["Platform"] or e["ArtifactType"] or "-", e["Digest"], size(e["Size"]))
                for e in listed
            ],
            ("platform", "digest", "size"),
        )
    if layers:
        print()
        table(
            [(e["Digest"], size(e["Size"]), e["MIMEType"]) for e in layers],
            ("layer", "size", "media type"),
        )


def _plain(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, dict):
        return " ".join(f"{k}={v}" for k, v in value.items())
    return str(value)
