"""What users of other tools type and argosy refuses, and what to type instead: the advice after the refusal.

Loaded for that alone. What needs more than a line is in docs/migration.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from argosy.cli.table import ALIASES

COMMANDS: Mapping[str, str] = {
    "auth login": "argosy login",
    "auth logout": "argosy logout",
    "blob delete": "argosy blob rm",
    "blob fetch": "argosy blob get",
    "blob push": "argosy blob put",
    "gc": "argosy layout gc",
    "image": "argosy cp, digest, inspect, mutate and so on, each without a group",
    "image check-base": "argosy check-base",
    "image copy": "argosy cp",
    "image create": "argosy new",
    "image delete": "argosy manifest rm",
    "image digest": "argosy digest",
    "image export": "argosy cp IMAGE oci-archive:FILE",
    "image get-file": "argosy fs cat",
    "image import": "argosy push FILE IMAGE",
    "image inspect": "argosy config",
    "image mod": "argosy mutate",
    "image ratelimit": "argosy registry ping",
    "index append": "argosy index add, or without a base argosy index create",
    "index list": "argosy inspect",
    "index update": "argosy index add or argosy index rm",
    "init": "argosy layout init",
    "load": "argosy run docker-archive:FILE, or argosy cp docker-archive:FILE PLACE",
    "manifest delete": "argosy manifest rm",
    "manifest diff": "argosy diff",
    "manifest fetch": "argosy manifest get",
    "manifest fetch-config": "argosy config",
    "manifest index": "argosy index create, add or rm",
    "manifest inspect": "argosy manifest get",
    "manifest push": "argosy manifest put",
    "manifest-digest": "sha256sum FILE",
    "ping": "argosy registry ping",
    "raw add-layer": "argosy append",
    "raw runtime-config": "argosy bundle config",
    "raw unpack": "argosy unpack --rootfs-only",
    "repo copy": "argosy cp --all-tags",
    "repo ls": "argosy catalog",
    "repo tags": "argosy ls",
    "save": "argosy cp IMAGE docker-archive:FILE:IMAGE",
    "stat": "argosy history",
    "system prune": "argosy prune",
}
"""A command of another tool → ours."""

_LAYOUT = "a layout is written as a place: oci:DIRECTORY:TAG"
_CREDENTIALS = "--creds USER:PASSWORD, or log in before, with argosy login"
_DEFAULT = "that is the default: leave it out"
_PLATFORM = "--platform OS/ARCH takes one image out of an index; without it all are taken"
_UNSIGNED = "argosy neither signs nor encrypts"
_COMPRESS = "--compress gzip or --compress zstd"
_EXCHANGES = "-v shows every exchange with a registry"
_STDOUT = "it is written to stdout: > FILE"

OPTIONS: Mapping[str, str] = {
    "--allow-nondistributable-artifacts": "--foreign",
    "--debug": _EXCHANGES,
    "--distribution-spec": "--referrers-mode api or --referrers-mode tag",
    "--from-oci-layout": _LAYOUT,
    "--image": _LAYOUT,
    "--layout": "a layout is written as a place: oci:DIRECTORY",
    "--multi-arch": _PLATFORM,
    "--oci-layout": _LAYOUT,
    "--override-arch": _PLATFORM,
    "--override-os": _PLATFORM,
    "--override-variant": _PLATFORM,
    "--password": _CREDENTIALS,
    "--password-stdin": _CREDENTIALS,
    "--pretty": "the bytes are printed as they are; pipe them to jq",
    "--tarball": "an archive is written as a place: docker-archive:FILE",
    "--tls": "--plain-http for http, --insecure for certificates that are not trusted",
    "--to-oci-layout": _LAYOUT,
    "--username": _CREDENTIALS,
    "-p": _CREDENTIALS,
    "-u": _CREDENTIALS,
    "--verbosity": _EXCHANGES,
    "artifact push --export-manifest": "argosy manifest get PLACE > FILE",
    "blob get --descriptor": "argosy blob head",
    "config --output": _STDOUT,
    "config -o": _STDOUT,
    "cp --all": _DEFAULT,
    "cp --dest-compress": _COMPRESS,
    "cp --dest-compress-format": _COMPRESS,
    "cp --encryption-key": _UNSIGNED,
    "cp --insecure-policy": _DEFAULT,
    "cp --output": "TARGET is the second argument",
    "cp --platforms": "--sparse --platform OS/ARCH, for each platform",
    "cp --remove-signatures": _DEFAULT,
    "cp --sign-by": _UNSIGNED,
    "cp -o": "TARGET is the second argument",
    "inspect --no-tags": _DEFAULT,
    "inspect --output": "--json",
    "inspect -n": _DEFAULT,
    "inspect -o": "--json",
    "manifest get --descriptor": "argosy manifest head",
    "layout gc --layout": "the directory is an argument",
    "layout init --layout": "the directory is an argument",
    "manifest get --format": "argosy inspect PLACE says what it is; the bytes are printed as they are",
    "manifest get --output": _STDOUT,
    "manifest get --raw": _DEFAULT,
    "manifest get -o": _STDOUT,
    "mutate --create": "-t PLACE",
    "mutate --replace": _DEFAULT,
    "mutate --repo": "-t PLACE, with a tag",
    "push --image-refs": "the reference by digest is on stdout: > FILE",
    "serve --addr": "--host and --port",
    "serve --address": "--host and --port",
    "serve --disk": "--data DIRECTORY",
    "sync --all": _DEFAULT,
    "sync --dest": "write the places: argosy sync registry/name oci:DIRECTORY, or --target with -f FILE",
    "sync --src": "write the places: argosy sync registry/name oci:DIRECTORY, or -f FILE for skopeo's file",
    "tag -t": "the tags are arguments behind the place",
    "validate --remote": _DEFAULT,
}
"""An option that another tool has, at that command or wherever registries are talked to → what to type instead."""

_JSON = ("--format", "--output", "-o")


def command(prefix: str, words: Sequence[str]) -> str:
    """What to type instead of a command that is none, or nothing.

    >>> command("manifest", ["fetch", "alpine"])
    'argosy manifest get'
    """
    typed = f"{prefix} {words[0]}".strip()
    return COMMANDS.get(" ".join([typed, *words[1:2]])) or COMMANDS.get(typed, "")


def flag(error: click.BadOptionUsage) -> str:
    """What to type instead of `--flag=true`, as Go's tools take it, or nothing."""
    if "does not take a value" not in error.message:
        return ""
    return f"{error.option_name} stands alone, without =true or =false"


def option(error: click.NoSuchOption) -> str:
    """What to type instead of an option that a command does not have, or nothing."""
    ctx, name = error.ctx, error.option_name
    if ctx is None:
        return ""
    if ctx.parent is None:
        return "" if error.possibilities else "options stand behind the command"
    group, _, last = ctx.command_path.partition(" ")[2].rpartition(" ")
    own = f"{group} {last if group else ALIASES.get(last, last)}".strip()
    has = {known for param in ctx.command.params for known in param.opts}
    found = OPTIONS.get(f"{own} {name}") or ("--creds" in has and OPTIONS.get(name))
    return found or ("--json" if "--json" in has and name in _JSON else "")
