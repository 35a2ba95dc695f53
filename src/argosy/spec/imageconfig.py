"""The image configuration (image-spec, config.md), every property of it; unknown ones are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from argosy.errors import InvalidConfigError
from argosy.spec import _json
from argosy.spec._value import Value
from argosy.spec.descriptor import DIGEST
from argosy.spec.digest import Digest
from argosy.spec.platform import Platform

MAX_SIZE = 8 * 1024 * 1024
"""The most bytes argosy reads as an image configuration."""


class ExecutionParameters(Value, kw_only=True):
    """The `config` object: what a container of the image runs, unless told otherwise.

    `entrypoint` and `cmd` are None where absent, which is not the same as empty.
    """

    user: str = _json.prop("User", _json.STRING, "")
    exposed_ports: tuple[str, ...] = _json.prop("ExposedPorts", _json.SET, ())
    env: tuple[str, ...] = _json.prop("Env", _json.STRINGS, ())
    entrypoint: tuple[str, ...] | None = _json.prop("Entrypoint", _json.STRINGS, None)
    cmd: tuple[str, ...] | None = _json.prop("Cmd", _json.STRINGS, None)
    volumes: tuple[str, ...] = _json.prop("Volumes", _json.SET, ())
    working_dir: str = _json.prop("WorkingDir", _json.STRING, "")
    labels: Mapping[str, str] = _json.prop("Labels", _json.STRING_MAP, {})
    stop_signal: str = _json.prop("StopSignal", _json.STRING, "")
    args_escaped: bool = _json.prop("ArgsEscaped", _json.BOOLEAN, False)
    memory: int | None = _json.prop("Memory", _json.INTEGER, None)
    memory_swap: int | None = _json.prop("MemorySwap", _json.INTEGER, None)
    cpu_shares: int | None = _json.prop("CpuShares", _json.INTEGER, None)
    healthcheck: Mapping[str, object] | None = _json.prop("Healthcheck", _json.ANY, None)
    extra: Mapping[str, object] = _json.extra()


class LayerStack(Value, kw_only=True):
    """The `rootfs` object: the digests of the uncompressed layers, from the base upwards."""

    type: str = _json.prop("type", _json.STRING)
    diff_ids: tuple[Digest, ...] = _json.prop("diff_ids", _json.list_of(DIGEST), (), always=True)
    extra: Mapping[str, object] = _json.extra()

    def __post_init__(self) -> None:
        if self.type != "layers":
            raise InvalidConfigError(f"type: expected 'layers', got {self.type[:64]!r}")


class History(Value, kw_only=True):
    """How one layer, or one change of the configuration alone (`empty_layer`), came to be."""

    created: str | None = _json.prop("created", _json.TIME, None)
    author: str = _json.prop("author", _json.STRING, "")
    created_by: str = _json.prop("created_by", _json.STRING, "")
    comment: str = _json.prop("comment", _json.STRING, "")
    empty_layer: bool = _json.prop("empty_layer", _json.BOOLEAN, False)
    extra: Mapping[str, object] = _json.extra()


class ImageConfig(Value, kw_only=True):
    """An image's configuration. Times are RFC 3339 strings, as written.

    Example:
        >>> c = ImageConfig(architecture="amd64", os="linux", rootfs=LayerStack(type="layers"))
        >>> ImageConfig.decode(c.encode()) == c
        True
        >>> c.chain_ids()
        ()
    """

    created: str | None = _json.prop("created", _json.TIME, None)
    author: str = _json.prop("author", _json.STRING, "")
    architecture: str = _json.prop("architecture", _json.STRING)
    os: str = _json.prop("os", _json.STRING)
    os_version: str = _json.prop("os.version", _json.STRING, "")
    os_features: tuple[str, ...] = _json.prop("os.features", _json.STRINGS, ())
    variant: str = _json.prop("variant", _json.STRING, "")
    config: ExecutionParameters | None = _json.prop(
        "config", _json.object_of(ExecutionParameters), None
    )
    rootfs: LayerStack = _json.prop("rootfs", _json.object_of(LayerStack))
    history: tuple[History, ...] = _json.prop(
        "history", _json.list_of(_json.object_of(History)), ()
    )
    extra: Mapping[str, object] = _json.extra()

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Read a configuration.

        Raises:
            InvalidConfigError: it breaks the specification; the message names the property.
            LimitExceededError: more than 8 MiB.
        """
        value = _json.loads_object(raw, limit=MAX_SIZE, error=InvalidConfigError)
        return _json.decode_object(cls, value, "", InvalidConfigError)

    def encode(self) -> bytes:
        """The document as argosy writes it: UTF-8, compact, unknown properties last."""
        return _json.dumps(_json.encode_object(self))

    @property
    def platform(self) -> Platform:
        """The platform its properties name."""
        return Platform(
            architecture=self.architecture,
            os=self.os,
            os_version=self.os_version,
            os_features=self.os_features,
            variant=self.variant,
        )

    @property
    def execution(self) -> ExecutionParameters:
        """The `config` object, or one with nothing in it where it is absent."""
        return self.config or ExecutionParameters()

    def chain_ids(self) -> tuple[Digest, ...]:
        """The ChainID of every layer applied on those below it (config.md, "Layer ChainID")."""
        return chain_ids(self.rootfs.diff_ids)


def chain_ids(diff_ids: tuple[Digest, ...]) -> tuple[Digest, ...]:
    """The ChainIDs of a stack of DiffIDs, from the base upwards.

    >>> a, b = Digest.of(b"a"), Digest.of(b"b")
    >>> chain_ids((a, b)) == (a, Digest.of(f"{a} {b}".encode()))
    True
    """
    chain: list[Digest] = []
    for diff_id in diff_ids:
        above = f"{chain[-1]} {diff_id}".encode() if chain else b""
        chain.append(Digest.of(above, chain[-1].algorithm) if chain else diff_id)
    return tuple(chain)
