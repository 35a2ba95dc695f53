"""What a runtime would say to a bundle: its configuration, its directory, and this machine's kernel.

Every finding names its property, so nothing has to be started to learn what is wrong, and all is found at once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from argosy.bundle import rules, schema
from argosy.bundle.host import HOST_RULES, Host
from argosy.bundle.rules import Finding

__all__ = ["Finding", "check_bundle", "check_config"]

LIMIT = 16 << 20
"""The largest `config.json` that is read, in bytes."""


def check_bundle(path: str, *, host: Host | None = None) -> list[Finding]:
    """Check a bundle's directory and its configuration against the specification and a machine.

    Args:
        path: The bundle's directory.
        host: The machine; None for the one this runs on.

    Returns:
        What is wrong or without effect, in the order of the checks; nothing for a bundle that can run here.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     print(*check_bundle(place))
    refused: config.json: there is none
    """
    try:
        config = _read(os.path.join(path, "config.json"))
    except FileNotFoundError:
        return [_broken("there is none")]
    except OSError as error:
        return [_broken(f"it cannot be read: {os.strerror(error.errno or 0).lower()}")]
    except (ValueError, RecursionError) as error:
        return [_broken(f"it is no JSON: {error}")]
    found = check_config(config, host=host)
    if not isinstance(config, dict):
        return found
    return [*found, *_directory(path, config)]


def check_config(config: Any, *, host: Host | None = None) -> list[Finding]:
    """Check a configuration against the specification and a machine.

    Args:
        config: The parsed `config.json`.
        host: The machine; None for the one this runs on.

    >>> [str(each) for each in check_config({"ociVersion": 1})]
    ['refused: ociVersion: expected a string, got 1']
    """
    shape = [rules.refused(where, why) for where, why in schema.violations(config)]
    if shape:  # rules between properties need properties of the right shape
        return [*shape, *_unknown(config)]
    whole = without_nulls(config)
    found = [finding for rule in rules.RULES for finding in rule(whole)]
    here = host or Host.probe()
    found += [finding for rule in HOST_RULES for finding in rule(whole, here)]
    return [*found, *_unknown(config)]


def without_nulls(value: Any) -> Any:
    """A JSON value without the properties that are null: to runtimes they are not there."""
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [without_nulls(each) for each in value]
    return value


def _unknown(config: Any) -> Iterator[Finding]:
    for where in schema.unknown(config):
        yield rules.ignored(where, "runtime-spec 1.3 has no such property")


def _broken(why: str) -> Finding:
    return Finding(verdict="refused", where="config.json", why=why, source="bundle")


def _read(path: str) -> Any:
    with open(path, "rb") as file:
        raw = file.read(LIMIT + 1)
    if len(raw) > LIMIT:
        raise ValueError(f"larger than {LIMIT} bytes")
    return json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the property {twice!r} is there twice")
    return found


def _directory(path: str, config: dict[str, Any]) -> Iterator[Finding]:
    root = config.get("root")
    if not isinstance(root, dict) or not isinstance(root.get("path"), str):
        if root is None:
            yield Finding(
                verdict="refused",
                where="root",
                why="this property is required on Linux",
                source="bundle",
            )
        return
    place = os.path.join(path, root["path"])
    if not os.path.isdir(place):
        yield Finding(
            verdict="refused", where="root.path", why=f"{place} is no directory", source="bundle"
        )
        return
    yield from _program(place, config)


def _program(rootfs: str, config: dict[str, Any]) -> Iterator[Finding]:
    """What is plainly missing in the root file system; a mount may still bring it."""
    process = config.get("process")
    args = process.get("args") if isinstance(process, dict) else None
    if (
        not isinstance(args, list)
        or not args
        or not isinstance(args[0], str)
        or not args[0].startswith("/")
    ):
        return
    if config.get("mounts") and any(
        _covers(mount, args[0]) for mount in config["mounts"] if isinstance(mount, dict)
    ):
        return
    if not os.path.lexists(rootfs + args[0]) and not _through_a_link(rootfs, args[0]):
        why = f"the root file system has no {args[0]}"
        yield Finding(verdict="doubtful", where="process.args[0]", why=why, source="bundle")


def _covers(mount: dict[str, Any], path: str) -> bool:
    place = str(mount.get("destination", "")).rstrip("/")
    return path == place or path.startswith(place + "/")


def _through_a_link(rootfs: str, path: str) -> bool:
    """Whether a directory on the way is a link, which must not be followed from outside."""
    parts = path.strip("/").split("/")[:-1]
    return any(os.path.islink(os.path.join(rootfs, *parts[: n + 1])) for n in range(len(parts)))
