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

from argosy.engine import cgroup, etc, overlay
from argosy.engine.configure import arguments, check, configure, find_user
from argosy.engine.container import Container, sweep, unheard
from argosy.engine.images import LocalImages
from argosy.engine.invoke import ALIVE, RUNNING, InvocationError, Runtime, kill_forgotten, status_of
from argosy.engine.layers import LayerTrees, name_of
from argosy.engine.network import Bridge, with_exposed
from argosy.engine.options import RunOptions
from argosy.engine.places import Places
from argosy.engine.rootless import mapped
from argosy.engine.values import signal_number
from argosy.engine.watch import Watch
from argosy.errors import ContainerError, ContainerStatusError, ContainerUnknownError
from argosy.image.view import Image, Layer
from argosy.spec.imageconfig import ImageConfig

_KILLED = 10.0
"""Seconds in which a container must end that was killed."""


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
            UnsupportedError: a program it needs is not installed.
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
        return self.watch(container, lambda: None, detached=False)

    def run_detached(
        self,
        name: str,
        image: Image,
        options: RunOptions,
        *,
        on_layer: Callable[[Layer], object] = unheard,
        on_made: Callable[[Container], object] = unheard,
    ) -> str:
        """Start a container that a process of its own watches.

        Returns:
            Its id; its program runs, or has run already.

        Raises:
            InvocationError: it could not be started. Nothing is left.
        """
        container = self._prepare(name, image, options, on_layer, on_made, detached=True)
        self._in_background(container)
        return container.id

    def start(self, container: Container) -> None:
        """Run a container again that has ended, watched by a process of its own; one that runs is left alone, and so is
        one that somebody else starts just now.

        Its changes to the root file system are still there; the network, the mounts and the files of /etc are new. If
        it cannot be started, everything is as before.

        Raises:
            ContainerStatusError: it cannot be started at all.
            InvocationError: its program could not be.
        """
        if self._again(container):
            self._in_background(container)

    def start_attached(self, container: Container, *, stdin: bool) -> int:
        """As `start`, in the foreground; and wait for it.

        Args:
            container: The container.
            stdin: Whether it gets this process's stdin, if it was promised one.

        Returns:
            The container's exit code.

        Raises:
            ContainerStatusError: it runs already.
        """
        if not self._again(container):
            raise ContainerStatusError(
                f"container {container.record.name} is running",
                hint="argosy logs -f shows what a detached one writes",
            )
        return self.watch(container, lambda: None, detached=False, stdin=stdin)

    def _again(self, container: Container) -> bool:
        """Set up a container that has ended as it was set up before its first start, and hold its lock.

        Returns:
            Whether it had ended; one that runs is left alone.
        """
        if not container.hold_unless_running():
            return False
        try:
            self._check_ended(container)
            config = container.image()
            options = RunOptions.decode(container.record.options)
        except BaseException:
            container.release()
            raise
        try:
            self._set_up(container, config, options)
        except BaseException:
            self.clear(container, keep=True)
            raise
        return True

    def _check_ended(self, container: Container) -> None:
        """See that a container can be started again, and clear away what a watcher that was killed left of it."""
        record = container.record
        if record.exit_code is None and (not record.started or record.options["remove"]):
            why = "was to be removed at its end" if record.started else "never started"
            raise ContainerStatusError(
                f"container {record.name} {why}", hint="argosy rm removes it"
            )
        runtime = Runtime(container)
        state = runtime.state()
        if state and state.get("status") in RUNNING:
            raise ContainerStatusError(
                f"container {record.name} runs on, and nobody watches it",
                hint="argosy stop ends it",
            )
        if state:
            runtime.delete()
        self._take_down(container)

    def _in_background(self, container: Container) -> None:
        """Have a prepared container watched by a process of its own, and wait until its program runs."""
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

    def watch(
        self,
        container: Container,
        on_started: Callable[[], object],
        *,
        detached: bool,
        stdin: bool = True,
    ) -> int:
        """Watch a prepared container to its end and clear away what it no longer needs.

        One that has started, now or before, is kept, whatever fails then, unless it is to be removed at its end.

        Args:
            container: The container.
            on_started: Called when its program runs.
            detached: Its output goes to its log instead of this process's own.
            stdin: Whether it gets this process's stdin, if it is not detached and was promised one.

        Returns:
            Its exit code.

        Raises:
            InvocationError: it could not be started. Of one that never was, nothing is left.
            StorageError: some of its output, or its record, could not be written.
        """
        keep = bool(container.record.started)

        def started() -> None:
            nonlocal keep
            keep = not container.record.options["remove"]
            on_started()

        container.record.watcher = os.getpid()
        container.begin()
        watch = Watch(container, Runtime(container), detached=detached, stdin=stdin)
        try:
            container.save()
            return watch.run(started)
        finally:
            container.tell()
            self.clear(container, keep=keep or not watch.gone)  # else nobody would know of the rest

    def clear(self, container: Container, *, keep: bool) -> None:
        """Take away mount and network; and directory and record too, unless they are kept."""
        self._take_down(container)
        if keep:
            try:
                container.save()
            finally:
                container.release()
        else:
            container.discard()

    def _take_down(self, container: Container) -> None:
        overlay.detach(container.rootfs)
        if container.record.options["network"] == "bridge":
            self.bridge.down(container.id)

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
        arguments(image.config, options)  # or it is of no use to unpack it
        stop_signal = options.stop_signal or image.config.execution.stop_signal or "TERM"
        # This sees to it that it is a signal: better now than when the container is to be stopped.
        exposed = image.config.execution.exposed_ports if options.publish_all else ()
        published = with_exposed(options.published, exposed)
        options = dataclasses.replace(options, stop_signal=stop_signal, published=published)
        container = Container.make(
            self.places, options, image=name, digest=image.manifest.config.digest, detached=detached
        )
        try:
            on_made(container)
            with self.layers.settled():
                container.record.layers = self.layers.plan(image)
                container.save()
            with self.images.reading(name, image):
                self.layers.ensure(image, on_layer)
            overlay.like(container.file("upper"), container.record.layers[0])
            container.keep_image(image.raw_config)
            self._set_up(container, image.config, options)
        except BaseException:
            self.clear(container, keep=False)
            raise
        return container

    def _set_up(self, container: Container, config: ImageConfig, options: RunOptions) -> None:
        """What every start needs. It is made anew at each one: whatever a container did changes nothing of it."""
        self._mount(container)
        self._bundle(container, config, options)

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

    def _bundle(self, container: Container, image: ImageConfig, options: RunOptions) -> None:
        """The user, who may not be there, and then all else: network, files of /etc, config.json."""
        user = find_user(
            options.user or image.execution.user, options.groups, container.rootfs, self.ids
        )
        namespace = None
        if options.network == "bridge":
            attachment = self.bridge.up(container.id, options.published)
            namespace, container.record.address = attachment.namespace, attachment.address
        config = configure(
            image,
            options,
            user=user,
            container_id=container.id,
            rootfs=container.rootfs,
            files=etc.write(container, options),
            network_namespace=namespace,
            rootless=self.rootless,
            ids=self.ids,
        )
        argv = config["process"]["args"]
        container.record.command = argv[2:] if options.init else argv  # without the init before it
        container.write("config.json", json.dumps(config).encode())
        container.save()

    def stop(
        self, container: Container, timeout: float | None = None, number: int | None = None
    ) -> None:
        """Ask a container to end, and after a time make it; one that has ended is left alone.

        Args:
            container: The container.
            timeout: Seconds to wait; what `run` was told if None.
            number: The signal to ask with; the image's or `run`'s if None.

        Raises:
            ContainerStatusError: it does not run yet.
            ContainerError: it does not end, or who watches it does not.
        """
        if container.status != "exited":
            runtime, pid = _running(container)
            asked = container.record.options
            number = number or signal_number(asked["stop_signal"])
            waited = asked["stop_timeout"] if timeout is None else timeout
            if not _end(runtime, pid, number, waited):
                _kill(container, runtime, pid)
        container.wait_unwatched()

    def kill(self, container: Container, number: int = signal.SIGKILL) -> None:
        """Send a container's program a signal. After SIGKILL, wait for its end.

        Raises:
            ContainerStatusError: it does not run.
            ContainerError: it cannot be killed, or who watches it does not end.
        """
        runtime, pid = _running(container)
        if number != signal.SIGKILL:
            runtime.kill(number)
            return
        _kill(container, runtime, pid)
        container.wait_unwatched()

    def remove(self, container: Container, *, force: bool = False, dry_run: bool = False) -> None:
        """Remove a container that has ended, or what is there of a damaged one.

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
            forgotten = kill_forgotten(container)
            container.wait_unwatched()
            if forgotten:
                cgroup.remove(container.id)
        if os.path.isdir(container.path):
            self._sweep(container)

    def _sweep(self, container: Container) -> None:
        container.hold()  # or somebody has started it again meanwhile
        try:
            Runtime(container).delete()
        except BaseException:
            container.release()  # and kept, for nobody else knows of what the runtime has left
            raise
        self.clear(container, keep=False)

    def prune(self, *, images: bool = False) -> tuple[list[str], list[str], int]:
        """Remove containers nobody watches, networks without a container, and layers no image or container needs.

        While one runs whose record is damaged, all layers stay; while an image is damaged, all blobs, too.

        Args:
            images: Also images that no container uses.

        Returns:
            The ids of the containers, the layers' directories, and the bytes of blobs that are gone.
        """
        gone = sweep(self.places)
        for container in list(Container.every(self.places, damaged=True)):
            if not container.watched:
                with contextlib.suppress(ContainerError, ContainerUnknownError):
                    self._sweep(container)
                    gone.append(container.id)
        leases = self.bridge.leased()  # first, for a container has its record before its lease
        kept = list(Container.every(self.places, damaged=True))
        for lease in leases - {container.id for container in kept}:
            self.bridge.down(lease)
        if images:
            used = {container.record.image for container in kept}
            self.images.remove(*(name for name in self.images.store.tags() if name not in used))
        damaged = any(entry.damaged for entry in self.images.entries())
        freed = 0 if damaged else self.images.collect()
        with self.layers.settled(alone=True):
            containers = list(Container.every(self.places, damaged=True))
            if damaged or any(container.damaged for container in containers):
                return gone, [], freed  # nobody knows what it needs
            needed = {os.path.basename(x) for c in containers for x in c.record.layers}
            needed.update(map(name_of, self.images.chain_ids()))
            return gone, self.layers.collect(needed), freed


def _refusal(answer: bytes) -> InvocationError:
    try:
        code, message = json.loads(answer)
    except ValueError:
        return InvocationError("the container's monitor ended unexpectedly")
    return InvocationError(message, exit_code=code)


def _running(container: Container) -> tuple[Runtime, int]:
    """The runtime for a container that runs, and its init."""
    runtime = Runtime(container)
    state = runtime.state()
    if state is None or state.get("status") not in ALIVE:
        raise ContainerStatusError(f"container {container.record.name} is not running")
    return runtime, state["pid"]


def _kill(container: Container, runtime: Runtime, pid: int) -> None:
    if not _end(runtime, pid, signal.SIGKILL, _KILLED):
        raise ContainerError(f"container {container.record.name} cannot be killed")


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
