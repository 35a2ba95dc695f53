"""`run`: from an image to a running container, and everything afterwards.

What is made is made in this order, and undone in the other: directory and lock, unpacked layers, mounted root file
system, network, bundle, container.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable

from argosy.engine import overlay
from argosy.engine.configure import check, configure
from argosy.engine.container import Container, sweep, unheard
from argosy.engine.images import LocalImages
from argosy.engine.invoke import ALIVE, InvocationError, Runtime, status_of
from argosy.engine.layers import LayerTrees
from argosy.engine.network import Bridge
from argosy.engine.options import RunOptions
from argosy.engine.places import Places
from argosy.engine.rootless import mapped
from argosy.engine.values import signal_number
from argosy.engine.watch import Watch
from argosy.errors import ContainerError, ContainerStatusError
from argosy.image.view import Image, Layer

_HOSTS = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
_MAX_RESOLV = 65536


class Engine:
    """The engine of one user.

    Args:
        places: Its directories and its runtime.
        rootless: Whether this process is root only inside a user namespace of its own.
    """

    def __init__(self, places: Places, *, rootless: bool = False) -> None:
        places.make()
        self.places = places
        self.rootless = rootless
        self.images = LocalImages(places.images)
        self.ids = mapped() if rootless else 1 << 32
        self.layers = LayerTrees(places.layers, rootless=rootless, one_owner=self.ids == 1)
        self.bridge = Bridge(places.run)

    def check(self, options: RunOptions) -> None:
        """Refuse, before an image is brought here, what cannot be on this machine with any image.

        Raises:
            UsageError: it names the option.
        """
        check(options, rootless=self.rootless)

    def run(
        self,
        name: str,
        image: Image,
        options: RunOptions,
        *,
        on_layer: Callable[[Layer], object] = unheard,
        on_made: Callable[[Container], object] = unheard,
    ) -> int:
        """Run a container in the foreground and wait for it.

        Args:
            name: The image's name, for the record.
            image: The image, which is here, whole.
            options: Everything else.
            on_layer: Told of every layer that is unpacked.
            on_made: Told of the container before anything of it is started.

        Returns:
            The container's exit code.

        Raises:
            InvocationError: it could not be started; its `exit_code` is Docker's. Nothing is left.
            ArgosyError: something before that failed. Nothing is left.
        """
        container = self._prepare(name, image, options, on_layer, on_made, detached=False)
        return self.watch(container, lambda: None)

    def run_detached(
        self,
        name: str,
        image: Image,
        options: RunOptions,
        *,
        on_layer: Callable[[Layer], object] = unheard,
        on_made: Callable[[Container], object] = unheard,
    ) -> Container:
        """Start a container that a process of its own watches.

        Returns:
            The container; its program runs.

        Raises:
            InvocationError: it could not be started. Nothing is left.
        """
        container = self._prepare(name, image, options, on_layer, on_made, detached=True)
        reader, writer = os.pipe()
        lock = container.lock
        assert lock is not None
        places = json.dumps([self.places.data, self.places.run, self.places.runtime])
        argv = [sys.executable, "-P", "-m", "argosy.engine.monitor"]
        argv += [places, container.id, str(lock), str(writer), str(int(self.rootless))]
        with open(container.file("monitor.log"), "ab") as log:
            subprocess.Popen(
                argv, pass_fds=(lock, writer), start_new_session=True, cwd="/",
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        os.close(writer)
        with os.fdopen(reader, "rb") as told:
            answer = told.read(65536)
        container.release()
        if answer != b"started":
            raise _refusal(answer)
        return Container.load(self.places, container.id)

    def watch(self, container: Container, on_started: Callable[[], object]) -> int:
        """Watch a prepared container to its end and clear away what it no longer needs.

        One that has started is kept, whatever fails then, unless it is to be removed at its end.

        Returns:
            Its exit code.

        Raises:
            InvocationError: it could not be started. Nothing is left.
            StorageError: some of its output, or its record, could not be written.
        """
        keep = False

        def started() -> None:
            nonlocal keep
            keep = not container.record.options["remove"]
            on_started()

        container.record.watcher = os.getpid()
        try:
            container.save()
            watch = Watch(container, Runtime(container), detached=container.record.detached)
            return watch.run(started)
        finally:
            self.clear(container, keep=keep)

    def clear(self, container: Container, *, keep: bool) -> None:
        """Take away mount and network; and directory and record too, unless they are kept."""
        overlay.detach(container.rootfs)
        if container.record.options["network"] == "bridge":
            self.bridge.down(container.id)
        if keep:
            try:
                container.save()
            finally:
                container.release()
        else:
            container.discard()

    def _prepare(
        self,
        name: str,
        image: Image,
        options: RunOptions,
        on_layer: Callable[[Layer], object],
        on_made: Callable[[Container], object],
        *,
        detached: bool,
    ) -> Container:
        digest = image.manifest.config.digest
        stop_signal = options.stop_signal or image.config.execution.stop_signal or "TERM"
        # This sees to it that it is a signal: better now than when the container is to be stopped.
        options = dataclasses.replace(options, stop_signal=stop_signal)
        container = Container.make(
            self.places, options, image=name, digest=digest, detached=detached
        )
        try:
            on_made(container)
            with self.layers.settled():
                container.record.layers = self.layers.plan(image)
                container.save()
            self.layers.ensure(image, on_layer)
            self._mount(container)
            self._bundle(container, image, options)
        except BaseException:
            self.clear(container, keep=False)
            raise
        return container

    def _mount(self, container: Container) -> None:
        upper, work = container.file("upper"), container.file("work")
        with overlay.detached(
            container.record.layers,
            upper,
            work,
            rootless=self.rootless,
            volatile=container.record.options["remove"],
        ) as mount:
            overlay.attach(mount, container.rootfs)

    def _bundle(self, container: Container, image: Image, options: RunOptions) -> None:
        """Network, files of /etc, config.json."""
        namespace = None
        if options.network == "bridge":
            attachment = self.bridge.up(container.id, options.published)
            namespace, container.record.address = attachment.namespace, attachment.address
        config = configure(
            image.config,
            options,
            container_id=container.id,
            rootfs=container.rootfs,
            files=self._files(container, options),
            network_namespace=namespace,
            rootless=self.rootless,
            ids=self.ids,
        )
        container.record.command = config["process"]["args"]
        with open(container.file("config.json"), "w", encoding="utf-8") as file:
            json.dump(config, file)
        container.save()

    def _files(self, container: Container, options: RunOptions) -> dict[str, str]:
        """`/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` for the container."""
        hostname = options.hostname or container.id[:12]
        hosts = _HOSTS + f"{container.record.address or '127.0.1.1'}\t{hostname}\n"
        for entry in options.add_hosts:
            host, _, address = entry.partition(":")
            hosts += f"{address.strip('[]')}\t{host}\n"
        written = {
            "/etc/hosts": hosts,
            "/etc/hostname": f"{hostname}\n",
            "/etc/resolv.conf": _resolv(options),
        }
        found = {}
        for place, text in written.items():
            path = container.file(os.path.basename(place))
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(path, 0o644)
            found[place] = path
        return found

    def stop(
        self, container: Container, timeout: float | None = None, number: int | None = None
    ) -> None:
        """Ask a container to end, and after a time make it.

        Args:
            container: The container.
            timeout: Seconds to wait; what `run` was told if None.
            number: The signal to ask with; the image's or `run`'s if None.

        Raises:
            ContainerStatusError: it does not run.
            ContainerError: it does not end, or who watches it does not.
        """
        runtime = Runtime(container)
        state = runtime.state()
        if state is None or state.get("status") not in ALIVE:
            raise ContainerStatusError(f"container {container.record.name} is not running")
        asked = container.record.options
        number = number or signal_number(asked["stop_signal"])
        waited = asked["stop_timeout"] if timeout is None else timeout
        if not _end(runtime, state["pid"], number, waited) and not _end(
            runtime, state["pid"], signal.SIGKILL, 10.0
        ):
            raise ContainerError(f"container {container.record.name} cannot be killed")
        if not container.record.detached or container.watched:
            container.wait_unwatched()

    def remove(self, container: Container, *, force: bool = False, dry_run: bool = False) -> None:
        """Remove a container that has ended.

        Args:
            container: The container.
            force: Kill it first if it runs.
            dry_run: Only refuse what would be refused.

        Raises:
            ContainerStatusError: it runs, and `force` was not said.
        """
        watched = container.watched
        if not force and (watched or status_of(container) == "orphaned"):
            raise ContainerStatusError(
                f"container {container.record.name} is running",
                hint="stop it first, or use --force",
            )
        if dry_run:
            return
        if watched:
            Runtime(container).delete()
            container.wait_unwatched()
        if os.path.isdir(container.path):
            self._sweep(container)

    def _sweep(self, container: Container) -> None:
        with contextlib.suppress(ContainerError):
            container.hold()
        Runtime(container).delete()
        self.clear(container, keep=False)

    def prune(self, *, images: bool = False) -> tuple[list[str], list[str], int]:
        """Remove containers nobody watches, networks without a container, and layers no image or container needs.

        Args:
            images: Also images that no container uses.

        Returns:
            The ids of the containers, the layers' directories, and the bytes of blobs that are gone.
        """
        gone = sweep(self.places)
        for container in list(Container.every(self.places)):
            if not container.watched:
                self._sweep(container)
                gone.append(container.id)
        leases = self.bridge.leased()  # first, for a container has its record before its lease
        kept = list(Container.every(self.places))
        for lease in set(leases) - {container.id for container in kept}:
            self.bridge.down(lease)
        if images:
            for name in set(self.images.store.tags()) - {c.record.image for c in kept}:
                self.images.store.untag(name)
        freed = self.images.collect()
        with self.layers.settled(alone=True):
            containers = Container.every(self.places)
            needed = {layer for container in containers for layer in container.record.layers}
            return gone, self.layers.collect(needed | self._of_images()), freed

    def _of_images(self) -> set[str]:
        found: set[str] = set()
        for entry in self.images.entries():
            if entry.platform is None:  # an artifact has no layers to unpack
                continue
            image = Image.select(
                self.images.store, self.images.store.resolve(entry.name), entry.platform
            )
            with contextlib.suppress(ValueError, LookupError):
                found.update(map(self.layers.place_of, image.config.chain_ids()))
        return found


def _refusal(answer: bytes) -> InvocationError:
    try:
        code, message = json.loads(answer)
    except ValueError:
        return InvocationError("the container's monitor ended unexpectedly")
    return InvocationError(message, exit_code=code)


def _end(runtime: Runtime, pid: int, number: int, timeout: float) -> bool:
    """Send a signal and wait for the end. Returns whether it came in time."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        with contextlib.suppress(InvocationError):
            runtime.kill(number)
        return _ended(pidfd, timeout)
    finally:
        os.close(pidfd)


def _ended(pidfd: int, timeout: float) -> bool:
    """Wait for a process to end, at most `timeout` seconds."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(timeout * 1000))


def _resolv(options: RunOptions) -> str:
    """The host's name servers, but for those that only the host can reach."""
    if options.dns:
        return "".join(f"nameserver {server}\n" for server in options.dns)
    try:
        with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
            lines = file.read(_MAX_RESOLV).splitlines()
    except OSError:
        lines = []
    local = options.network not in ("host", "none")
    kept = [
        line
        for line in lines
        if not (local and line.startswith(("nameserver 127.", "nameserver ::1")))
    ]
    return "".join(f"{line}\n" for line in kept)
