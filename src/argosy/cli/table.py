"""Every command: its section in the help, the module it lives in, and one line of help.

A name with a space is a command of a group. The group's own line has no module.
"""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """A line of the table. `module` is below `argosy.cli`; empty for a group. `attribute` names the click command."""

    section: str
    module: str
    help: str
    attribute: str = "command"


_LOOK, _MOVE, _MAKE, _REGISTRY, _DISK, _RUN = (
    "Look", "Move", "Make and change", "Registries", "On disk", "Containers",
)  # fmt: skip

COMMANDS: dict[str, Entry] = {
    "inspect": Entry(_LOOK, "inspect", "Show what an image is: platforms, layers, configuration."),
    "manifest": Entry(_LOOK, "", "Read and write manifests as they are, byte for byte."),
    "manifest get": Entry(_LOOK, "manifest", "Print a manifest.", "get"),
    "manifest head": Entry(_LOOK, "manifest", "Print a manifest's descriptor.", "head"),
    "manifest put": Entry(_LOOK, "manifest", "Store a manifest from a file.", "put"),
    "manifest rm": Entry(_LOOK, "manifest", "Remove a manifest with all its tags.", "rm"),
    "config": Entry(_LOOK, "config", "Print an image's configuration."),
    "digest": Entry(_LOOK, "digest", "Print the digest a tag stands for."),
    "ls": Entry(_LOOK, "ls", "List tags."),
    "graph": Entry(_LOOK, "graph", "Draw an image: index, manifests, layers and referrers."),
    "explain": Entry(_LOOK, "explain", "Walk an image's chain of digests and verify every link."),
    "validate": Entry(_LOOK, "validate", "Check every digest, size, media type and diff_id."),
    "cp": Entry(_MOVE, "cp", "Copy an image from any place to any place."),
    "tag": Entry(_MOVE, "tag", "Give an image more tags."),
    "rm": Entry(_MOVE, "rm", "Remove a tag, or a manifest by digest."),
    "layout": Entry(_DISK, "", "Look after OCI image layouts."),
    "layout init": Entry(_DISK, "layout", "Make an empty layout.", "init"),
    "layout ls": Entry(_DISK, "layout", "List what a layout holds.", "ls"),
    "layout gc": Entry(_DISK, "layout", "Remove blobs nothing refers to.", "gc"),
    "layout fsck": Entry(_DISK, "layout", "Read and verify everything in a layout.", "fsck"),
    "completion": Entry(_LOOK, "completion", "Print the shell's completion script."),
    "version": Entry(_LOOK, "version", "Print the version and what it was built with."),
}

ALIASES = {"copy": "cp", "delete": "rm", "resolve": "digest", "list-tags": "ls"}
"""Names other tools' users type; they are not listed in the help."""


def children(prefix: str) -> list[str]:
    """The names of the commands right below a group (`""` is the root), in the table's order."""
    start = f"{prefix} " if prefix else ""
    return [
        name[len(start) :]
        for name in COMMANDS
        if name.startswith(start) and " " not in name[len(start) :]
    ]
