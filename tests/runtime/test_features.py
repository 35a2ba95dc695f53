"""The features document against the tables of the runtime and what clients read in it."""

from __future__ import annotations

import json

from argosy.runtime import seccomp, tables
from argosy.runtime.features import FEATURES

DOCUMENT = json.loads(FEATURES)


def test_the_document_says_what_the_tables_say() -> None:
    linux = DOCUMENT["linux"]
    options = {
        *tables.ATTRIBUTES, *tables.RECURSIVE_ATTRIBUTES, *tables.SUPER_FLAGS, *tables.IGNORED_OPTIONS,
        *tables.PROPAGATION, *tables.BINDS, *tables.IDMAPS, "tmpcopyup",
    }  # fmt: skip
    assert set(DOCUMENT["mountOptions"]) == options
    assert set(linux["namespaces"]) == set(tables.NAMESPACES)
    assert linux["capabilities"] == list(tables.CAPABILITIES)
    assert set(linux["seccomp"]["actions"]) == set(seccomp.ACTIONS)
    assert set(linux["seccomp"]["operators"]) == set(seccomp.OPERATORS)
    assert set(linux["seccomp"]["archs"]) == set(seccomp.ARCHITECTURES)
    assert (
        linux["seccomp"]["knownFlags"] == linux["seccomp"]["supportedFlags"] == list(seccomp.FLAGS)
    )
    assert set(linux["memoryPolicy"]["modes"]) == set(tables.MEMORY_MODES)
    assert set(linux["memoryPolicy"]["flags"]) == set(tables.MEMORY_FLAGS)


def test_containerd_finds_what_it_needs_for_user_namespaces_and_recursive_read_only() -> None:
    assert DOCUMENT["linux"]["mountExtensions"]["idmap"]["enabled"] is True
    assert "user" in DOCUMENT["linux"]["namespaces"]
    assert "rro" in DOCUMENT["mountOptions"]


def test_versions_and_hooks_are_those_of_the_specification() -> None:
    assert (DOCUMENT["ociVersionMin"], DOCUMENT["ociVersionMax"]) == ("1.0.0", "1.3.0")
    assert DOCUMENT["hooks"] == [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
        "poststop",
    ]
    assert all(isinstance(value, str) for value in DOCUMENT["annotations"].values())
    assert "org.systemd.property." in DOCUMENT["potentiallyUnsafeConfigAnnotations"]


def test_the_document_is_printable_as_it_is() -> None:
    assert FEATURES.endswith(b"}\n")
    assert FEATURES.isascii()
