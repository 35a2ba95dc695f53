"""The container's root: made a mount, filled with devices, entered, and closed."""

from __future__ import annotations

import posix
from errno import EINVAL, ENOENT, EPERM

from argosy.runtime import kernel as k
from argosy.runtime.errors import Failure
from argosy.runtime.inroot import (
    O_DIR,
    O_PATH,
    S_IFBLK,
    S_IFCHR,
    S_IFDIR,
    S_IFIFO,
    S_IFMT,
    Root,
    kind,
)
from argosy.runtime.mounts import attach, clone, new
from argosy.runtime.tables import DEVICE_LINKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argosy.runtime.kernel import LinuxKernel
    from argosy.runtime.steps import Context

_TYPES = {"c": S_IFCHR, "u": S_IFCHR, "b": S_IFBLK, "p": S_IFIFO}
_NULL = posix.makedev(1, 3)
_SELF = k.AT_EMPTY_PATH


def prepare(context: Context, path: str, propagation: int, own: bool) -> None:
    """Make the root file system a mount of its own that nothing outside sees; open it.

    Args:
        path: absolute, resolved on the host.
        propagation: MS_* of ``rootfsPropagation``, 0 for the default.
        own: the container has a mount namespace.
    """
    kernel = context.kernel
    if own:
        kernel.mount(None, b"/", None, propagation or k.MS_SLAVE | k.MS_REC, None)
        _set_parent(kernel, path, k.MS_SLAVE if propagation & k.MS_SLAVE else k.MS_PRIVATE)
        target = posix.open(path, O_DIR | posix.O_NOFOLLOW)
        try:
            fd = clone(kernel, target, b"", recursive=True)
            attach(kernel, fd, target)
        finally:
            posix.close(target)
    else:
        fd = posix.open(path, O_DIR | posix.O_NOFOLLOW)
    context.root = Root(kernel, fd, context.proc)


def _set_parent(kernel: LinuxKernel, path: str, flags: int) -> None:
    """Propagation of the mount that holds ``path``: the nearest directory above that is a mount."""
    place = path.encode("utf-8", "surrogateescape")
    while True:
        try:
            kernel.mount(None, place, None, flags, None)
            return
        except k.KernelError as error:
            if error.errno != EINVAL or place == b"/":
                raise
        place = place.rsplit(b"/", 1)[0] or b"/"


# --- devices ---


def make_devices(
    context: Context, devices: list[tuple[str, str, int, int, int, int, int]], bind: bool
) -> None:
    """Make every device node, or bind the host's where nodes cannot be made (user namespaces)."""
    for device in devices:
        try:
            _make_device(context, device, bind)
        except (OSError, Failure) as error:
            error.add_note(f"error creating device node {device[0]}")
            raise


def _make_device(
    context: Context, device: tuple[str, str, int, int, int, int, int], bind: bool
) -> None:
    path, letter, major, minor, mode, uid, gid = device
    directory, name = context.root.parent(path)
    try:
        if not bind:
            number = 0 if letter == "p" else posix.makedev(major, minor)
            if _make_node(
                context.proc.host, directory, name, _TYPES[letter] | mode, number, uid, gid
            ):
                return
        _bind_device(context, directory, name, device)
    finally:
        posix.close(directory)


def _make_node(
    proc: int, directory: int, name: bytes, mode: int, number: int, uid: int, gid: int
) -> bool:
    """Make one node and see that it is the one; False where the kernel does not allow it."""
    try:
        posix.mknod(name, mode, number, dir_fd=directory)
        made = True
    except FileExistsError:
        made = False
    except PermissionError:
        return False
    fd = posix.open(name, O_PATH | posix.O_NOFOLLOW, dir_fd=directory)
    try:
        found = posix.fstat(fd)
        if found.st_mode & S_IFMT != mode & S_IFMT or found.st_rdev != number:
            raise Failure("a file that is not the requested device exists there")
        if made:
            place = b"self/fd/%d" % fd
            posix.chmod(place, mode & 0o7777, dir_fd=proc)
            posix.chown(place, uid, gid, dir_fd=proc)
    finally:
        posix.close(fd)
    return True


def _bind_device(
    context: Context, directory: int, name: bytes, device: tuple[str, str, int, int, int, int, int]
) -> None:
    path, letter, major, minor = device[:4]
    tree = clone(context.kernel, k.AT_FDCWD, path.encode(), recursive=False)
    try:
        found = posix.fstat(tree)
        right = found.st_mode & S_IFMT == _TYPES[letter]
        if not right or (letter != "p" and found.st_rdev != posix.makedev(major, minor)):
            raise Failure(f"the host's {path} is not the device {letter} {major}:{minor}")
        flags = (
            posix.O_CREAT | posix.O_NOFOLLOW | posix.O_CLOEXEC | posix.O_RDONLY | posix.O_NONBLOCK
        )
        posix.close(posix.open(name, flags, 0, dir_fd=directory))
        target = posix.open(name, O_PATH | posix.O_NOFOLLOW, dir_fd=directory)
        try:
            attach(context.kernel, tree, target)
        finally:
            posix.close(target)
    finally:
        posix.close(tree)


def link_devices(context: Context) -> None:
    """/dev/fd and its kin, /dev/ptmx."""
    links = list(DEVICE_LINKS)
    try:
        posix.stat("/proc/kcore")
        links.append(("/proc/kcore", "/dev/core"))
    except OSError:
        pass
    for target, path in links:
        context.root.symlink(target, path)
    context.root.symlink("pts/ptmx", "/dev/ptmx", replace=True)


def hold_null(context: Context) -> None:
    """A detached mount of a null device to mask files with: the container's own, which it may change as it likes.

    Where it has none the host's stands in, read-only: its mode and owner are everybody's.
    """
    kernel = context.kernel
    try:
        own = context.root.open("/dev/null")
        try:
            verify_null(own)
            context.null = clone(kernel, own, b"", recursive=False)
        finally:
            posix.close(own)
    except (OSError, Failure):
        context.null = clone(kernel, k.AT_FDCWD, b"/dev/null", recursive=False)
        verify_null(context.null)
        kernel.mount_setattr(context.null, k.MOUNT_ATTR_RDONLY, 0)


def verify_null(fd: int) -> None:
    """See that it is the null device.

    Raises:
        Failure: it is something else.
    """
    found = posix.fstat(fd)
    if found.st_mode & S_IFMT != S_IFCHR or found.st_rdev != _NULL:
        raise Failure("container's /dev/null is invalid")


def reopen_null(context: Context, joined: bool = False) -> None:
    """Standard streams on the host's /dev/null move to the container's own, once that is verified.

    Args:
        joined: this is ``exec``. What the container has by now instead is its own business and keeps nobody out: the
            streams then move to a null device that nothing else has.
    """
    wanted = [fd for fd in range(3) if _is_null(fd)]
    if not wanted:
        return
    try:
        fd = _open_null(context)
    except (OSError, Failure):
        if not joined:
            raise
        if context.user_namespace:
            return  # which can make no device; the host's is nobody's there
        fd = _make_null(context.kernel)
    for stream in wanted:
        posix.dup2(fd, stream, inheritable=True)
    posix.close(fd)


def _open_null(context: Context) -> int:
    path = context.root.open("/dev/null", O_PATH)
    try:
        verify_null(path)
        return context.proc.reopen(path, posix.O_RDWR)
    finally:
        posix.close(path)


def _make_null(kernel: LinuxKernel) -> int:
    """A null device on a file system that is mounted nowhere. Of the host's own the container could change the mode."""
    place = new(kernel, "tmpfs", "tmpfs", {}, ["nr_inodes=2"], 0)
    try:
        posix.mknod("null", S_IFCHR, _NULL, dir_fd=place)
        posix.chmod("null", 0o666, dir_fd=place)
        return posix.open("null", posix.O_RDWR | posix.O_CLOEXEC, dir_fd=place)
    finally:
        posix.close(place)


def _is_null(fd: int) -> bool:
    found = posix.fstat(fd)
    return found.st_mode & S_IFMT == S_IFCHR and found.st_rdev == _NULL


# --- entering ---


def pivot(context: Context) -> None:
    """pivot_root(2) onto itself, then detach the old root."""
    kernel, root = context.kernel, context.root
    old = posix.open("/", O_DIR)
    posix.fchdir(root.fd)
    kernel.pivot_root(b".", b".")
    posix.fchdir(old)
    posix.close(old)
    kernel.mount(None, b".", None, k.MS_SLAVE | k.MS_REC, None)
    kernel.umount(b".", k.MNT_DETACH)
    _arrive(context)


def chroot(context: Context) -> None:
    """Without a mount namespace of its own the container gets chroot(2)."""
    posix.fchdir(context.root.fd)
    posix.chroot(".")
    _arrive(context)


def move_root(context: Context, path: str) -> None:
    """``--no-pivot``: for a root file system on the initramfs. The host's proc and sysfs are covered or gone first."""
    from argosy.runtime.jsonio import read_file

    kernel = context.kernel
    rootfs = path.rstrip("/").encode("utf-8", "surrogateescape")
    posix.fchdir(context.root.fd)
    for line in read_file("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(b" - ")
        fields = left.split(b" ")
        if (
            fields[3] == b"/"
            and right.split(b" ")[0] in (b"proc", b"sysfs")
            and not fields[4].startswith(rootfs)
        ):
            _hide(kernel, fields[4])
    kernel.mount(rootfs, b"/", None, k.MS_MOVE, None)
    posix.chroot(".")
    _arrive(context)


def _hide(kernel: LinuxKernel, place: bytes) -> None:
    try:
        kernel.mount(None, place, None, k.MS_SLAVE | k.MS_REC, None)
        kernel.umount(place, k.MNT_DETACH)
    except k.KernelError as error:
        if error.errno == ENOENT:
            return
        if error.errno not in (EINVAL, EPERM):
            raise
        kernel.mount(b"tmpfs", place, b"tmpfs", 0, None)


def _arrive(context: Context) -> None:
    posix.chdir("/")
    posix.close(context.root.fd)
    context.root = Root(context.kernel, posix.open("/", O_DIR), context.proc)


def make_cwd(context: Context, path: str) -> None:
    """The working directory, made where it is missing; a place only the user may enter is left to a later chdir."""
    try:
        posix.close(context.root.mkdir(path))
    except PermissionError:
        pass
    except OSError as error:
        error.add_note(f"mkdir {path}")
        raise


# --- closing ---


def readonly_mount(context: Context, path: str) -> None:
    """A tmpfs, or /dev, that is read-only from here on."""
    fd = context.root.open(path)
    try:
        context.kernel.mount_setattr(fd, k.MOUNT_ATTR_RDONLY, 0)
    finally:
        posix.close(fd)


def readonly_root(context: Context) -> None:
    """The root itself."""
    context.kernel.mount_setattr(context.root.fd, k.MOUNT_ATTR_RDONLY, 0)


def root_propagation(context: Context, flags: int) -> None:
    """shared and unbindable can only be set once the root is the root."""
    context.kernel.mount(None, b"/", None, flags, None)


def readonly_path(context: Context, path: str) -> None:
    """A path that stays readable; a missing one needs nothing."""
    target = _open_or_none(context, path)
    if target is None:
        return
    try:
        if context.proc.path(target) == context.proc.path(context.root.fd):
            readonly_root(context)  # what is mounted over the root is over nobody's
            return
        tree = clone(context.kernel, target, b"", recursive=True)
        try:
            context.kernel.mount_setattr(tree, k.MOUNT_ATTR_RDONLY, 0)
            attach(context.kernel, tree, target)
        finally:
            posix.close(tree)
    except OSError as error:
        error.add_note(f'can\'t make "{path}" read-only')
        raise
    finally:
        posix.close(target)


def masked_paths(context: Context, paths: list[str], label: str) -> None:
    """Hide paths: files behind the null device, directories behind one empty read-only tmpfs that all share."""
    masks: dict[bool, int] = {False: context.null}
    attached: set[bool] = set()
    for path in paths:
        target = _open_or_none(context, path)
        if target is None:
            continue
        try:
            directory = kind(target) == S_IFDIR
            if directory and True not in masks:
                masks[True] = _empty(context.kernel, label)
            _mask(context.kernel, masks[directory], target, again=directory in attached)
            attached.add(directory)
        except OSError as error:
            error.add_note(f'can\'t mask {"dir" if directory else "path"} "{path}"')
            raise
        finally:
            posix.close(target)
    for fd in masks.values():
        posix.close(fd)


def _mask(kernel: LinuxKernel, mask: int, target: int, *, again: bool) -> None:
    tree = clone(kernel, mask, b"", recursive=False) if again else mask
    attach(kernel, tree, target)
    if again:
        posix.close(tree)


def _empty(kernel: LinuxKernel, label: str) -> int:
    data = ["nr_blocks=1", "nr_inodes=1"] + ([f'context="{label}"'] if label else [])
    return new(kernel, "tmpfs", "tmpfs", {"super": ["ro"]}, data, k.MOUNT_ATTR_RDONLY)


def _open_or_none(context: Context, path: str) -> int | None:
    try:
        return context.root.open(path)
    except OSError as error:
        if error.errno in (ENOENT, 20):
            return None
        error.add_note(f'can\'t open "{path}"')
        raise
