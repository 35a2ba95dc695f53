"""Where the engine keeps things."""

from __future__ import annotations

import dataclasses
import os

from argosy.errors import StorageError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The engine's directories.

    Attributes:
        data: What outlives a reboot: images (an OCI image layout), unpacked layers, containers.
        run: What does not: the runtime's state, network leases.
        runtime: The runtime's command line, such as `("/usr/bin/argosy-runtime",)`.
    """

    data: str
    run: str
    runtime: tuple[str, ...]

    @property
    def images(self) -> str:
        """The OCI image layout."""
        return os.path.join(self.data, "images")

    @property
    def layers(self) -> str:
        """Unpacked layers, one directory a chain id."""
        return os.path.join(self.data, "layers")

    @property
    def containers(self) -> str:
        """One directory a container."""
        return os.path.join(self.data, "containers")

    @property
    def state(self) -> str:
        """The runtime's `--root`."""
        return os.path.join(self.run, "runtime")

    def make(self) -> None:
        """Make the directories, for their owner alone.

        Raises:
            StorageError: one cannot be made.
        """
        for path in (self.data, self.layers, self.containers, self.run, self.state):
            try:
                os.makedirs(path, 0o700, exist_ok=True)
            except OSError as exc:
                raise StorageError(f"{path}: {os.strerror(exc.errno or 0).lower()}") from exc
