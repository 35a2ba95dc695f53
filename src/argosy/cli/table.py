"""Every command: its section in the help, the module it lives in, and one line of help.

A name with a space is a command of a group. The group's own line has no module.
"""

from __future__ import annotations

from argosy.spec._value import Value


class Entry(Value):
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
    "pull": Entry(_MOVE, "pull", "Bring images to this machine, or into a file."),
    "push": Entry(_MOVE, "push", "Send an image of this machine, or a file, to a registry."),
    "sync": Entry(_MOVE, "sync", "Keep many images the same in two places."),
    "backup": Entry(_MOVE, "backup", "Write a repository's tags and referrers into one place."),
    "restore": Entry(_MOVE, "backup", "Bring a backup back.", "restore"),
    "blob": Entry(_LOOK, "", "Read and write blobs as they are."),
    "blob get": Entry(_LOOK, "blob", "Print a blob.", "get"),
    "blob head": Entry(_LOOK, "blob", "Print a blob's descriptor.", "head"),
    "blob put": Entry(_LOOK, "blob", "Store a blob from a file.", "put"),
    "blob rm": Entry(_LOOK, "blob", "Remove a blob.", "rm"),
    "artifact": Entry(_MOVE, "", "Store files as artifacts, and get them back."),
    "artifact push": Entry(_MOVE, "artifact", "Pack files and store them.", "push"),
    "artifact pull": Entry(_MOVE, "artifact", "Write an artifact's files.", "pull"),
    "attach": Entry(_MOVE, "artifact", "Attach files to an image: an SBOM, a signature.", "attach"),
    "discover": Entry(_LOOK, "artifact", "Show what refers to an image.", "discover"),
    "tag": Entry(_MOVE, "tag", "Give an image more tags."),
    "rm": Entry(_MOVE, "rm", "Remove a tag, a manifest by digest, or a container."),
    "append": Entry(_MAKE, "append", "Put tar archives on an image as new layers."),
    "insert": Entry(_MAKE, "insert", "Put a file or directory into an image, or remove a path."),
    "mutate": Entry(_MAKE, "mutate", "Change an image's configuration and annotations."),
    "rebase": Entry(_MAKE, "rebase", "Put another base below an image."),
    "check-base": Entry(_MAKE, "rebase", "Look whether an image's base has changed.", "check"),
    "edit": Entry(_MAKE, "", "Change a document of an image in an editor."),
    "edit config": Entry(_MAKE, "edit", "Change the configuration.", "config"),
    "edit manifest": Entry(_MAKE, "edit", "Change the manifest or index.", "manifest"),
    "flatten": Entry(_MAKE, "flatten", "Make one layer of an image's layers."),
    "convert": Entry(_MAKE, "convert", "Give an image Docker's or OCI's media types."),
    "recompress": Entry(_MAKE, "convert", "Compress layers in another way.", "recompress"),
    "reproducible": Entry(
        _MAKE,
        "convert",
        "Write layers anew without what differs from build to build.",
        "reproducible",
    ),
    "index": Entry(_MAKE, "", "Make and change indexes: images of several platforms."),
    "index create": Entry(_MAKE, "index", "Make an index of images.", "create"),
    "index add": Entry(_MAKE, "index", "Add images to an index.", "add"),
    "index rm": Entry(_MAKE, "index", "Take entries out of an index.", "rm"),
    "index filter": Entry(_MAKE, "index", "Keep the entries for some platforms.", "filter_"),
    "index annotate": Entry(_MAKE, "index", "Annotate an index or an entry.", "annotate"),
    "new": Entry(_MAKE, "new", "Make an image without layers."),
    "history": Entry(_LOOK, "history", "Show how an image came to be."),
    "export": Entry(_LOOK, "export", "Write the files of an image as one tar archive."),
    "fs": Entry(_LOOK, "", "Look into an image without unpacking it."),
    "fs ls": Entry(_LOOK, "fs", "List files of an image.", "ls"),
    "fs cat": Entry(_LOOK, "fs", "Print files of an image.", "cat"),
    "fs cp": Entry(_LOOK, "fs", "Copy files out of an image.", "cp"),
    "diff": Entry(_LOOK, "diff", "Show what differs between two images."),
    "size": Entry(_LOOK, "size", "Show how large an image is, and how much of it is wasted."),
    "source": Entry(_MAKE, "", "Images of the sources an image was made from."),
    "source build": Entry(_MAKE, "source", "Make a source image.", "build"),
    "source add": Entry(_MAKE, "source", "Add sources to a source image.", "add"),
    "source ls": Entry(_MAKE, "source", "List the sources in a source image.", "ls"),
    "source unpack": Entry(_MAKE, "source", "Unpack all sources.", "unpack"),
    "unpack": Entry(_DISK, "unpack", "Make a runtime bundle of an image."),
    "repack": Entry(_DISK, "bundle", "Make an image of a bundle.", "repack"),
    "bundle": Entry(_DISK, "", "Look at runtime bundles."),
    "bundle config": Entry(
        _DISK, "bundle", "Print the runtime configuration of an image.", "config"
    ),
    "bundle diff": Entry(_DISK, "bundle", "Show what changed in a bundle.", "diff"),
    "bundle validate": Entry(_DISK, "bundle", "Check a bundle.", "validate"),
    "layout": Entry(_DISK, "", "Look after OCI image layouts."),
    "layout init": Entry(_DISK, "layout", "Make an empty layout.", "init"),
    "layout ls": Entry(_DISK, "layout", "List what a layout holds.", "ls"),
    "layout gc": Entry(_DISK, "layout", "Remove blobs nothing refers to.", "gc"),
    "layout fsck": Entry(_DISK, "layout", "Read and verify everything in a layout.", "fsck"),
    "login": Entry(_REGISTRY, "login", "Log in to a registry.", "login"),
    "logout": Entry(_REGISTRY, "login", "Forget a registry's credentials.", "logout"),
    "auth": Entry(_REGISTRY, "", "Look at credentials and tokens."),
    "auth ls": Entry(_REGISTRY, "login", "List credentials, or explain where one is from.", "ls"),
    "auth get": Entry(_REGISTRY, "login", "Print a registry's credentials.", "get"),
    "auth token": Entry(_REGISTRY, "login", "Print a registry's token.", "token"),
    "catalog": Entry(_REGISTRY, "catalog", "List a registry's repositories."),
    "serve": Entry(_REGISTRY, "serve", "Serve a registry."),
    "registry": Entry(_REGISTRY, "", "Look after a registry of one's own."),
    "registry ping": Entry(_REGISTRY, "catalog", "Ask whether a registry is there.", "ping"),
    "registry check-config": Entry(_REGISTRY, "checking", "Check a configuration.", "check_config"),
    "registry schema": Entry(_REGISTRY, "registry", "Print the configuration's schema.", "schema"),
    "registry gc": Entry(_REGISTRY, "registry", "Collect what nothing refers to.", "gc"),
    "registry scrub": Entry(_REGISTRY, "registry", "Find damaged blobs.", "scrub"),
    "registry rebuild": Entry(_REGISTRY, "registry", "Make a lost database again.", "rebuild"),
    "registry backup": Entry(_REGISTRY, "registry", "Copy the database.", "backup"),
    "registry stats": Entry(_REGISTRY, "registry", "Show how much there is.", "stats"),
    "registry migrate": Entry(_REGISTRY, "registry", "Update the database's schema.", "migrate"),
    "registry dead-letters": Entry(
        _REGISTRY, "letters", "Show events that webhooks were not told.", "letters"
    ),
    "registry retention": Entry(_REGISTRY, "registry", "Let old tags go.", "retain"),
    "spec": Entry(_RUN, "spec", "Make or edit a bundle's config.json."),
    "runtime-check": Entry(
        _RUN, "runtime_check", "Check a bundle against the spec and this kernel."
    ),
    "run": Entry(_RUN, "run", "Run a container."),
    "ps": Entry(_RUN, "containers", "List containers.", "ps"),
    "logs": Entry(_RUN, "containers", "Print what a container wrote.", "logs"),
    "exec": Entry(_RUN, "containers", "Run one more program in a container.", "exec_"),
    "start": Entry(_RUN, "containers", "Run containers again.", "start"),
    "stop": Entry(_RUN, "containers", "End containers.", "stop"),
    "kill": Entry(_RUN, "containers", "Kill containers, or send them a signal.", "kill"),
    "wait": Entry(_RUN, "containers", "Wait for containers and print their exit codes.", "wait"),
    "images": Entry(_RUN, "images", "List the images of this machine.", "images"),
    "rmi": Entry(_RUN, "images", "Remove images of this machine.", "rmi"),
    "prune": Entry(_RUN, "images", "Remove what nothing needs any more.", "prune"),
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
