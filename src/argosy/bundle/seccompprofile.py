"""A default seccomp profile: what programs need, and what each capability adds to it.

A call that is not listed fails with EPERM, one newer than the list with ENOSYS (the runtime sees to that). Left out are
calls that reach the kernel's configuration, other processes' memory, or code with a history of holes (io_uring,
userfaultfd, keyrings), and what would make namespaces.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from argosy.errors import InvalidConfigError

__all__ = ["default_profile", "for_container"]

_ALLOWED = """
    _llseek _newselect accept accept4 access adjtimex alarm arch_prctl arm_fadvise64_64 arm_sync_file_range bind
    breakpoint brk cacheflush cachestat capget capset chdir chmod chown chown32 clock_adjtime clock_adjtime64
    clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 close
    close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_pwait
    epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64
    fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64
    fdatasync fgetxattr file_getattr file_setattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64
    fstatat64 fstatfs fstatfs64 fsync ftime ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait
    futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid
    getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid
    getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname
    getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1
    inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl
    ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32
    lgetxattr link linkat listen listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lsm_get_self_attr
    lsm_list_modules lstat lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir
    mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 modify_ldt mprotect mq_getsetattr mq_notify mq_open
    mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget
    msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat nice open openat openat2
    pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl
    pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read
    readahead readdir readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages
    removexattr removexattrat rename renameat renameat2 restart_syscall riscv_flush_icache riscv_hwprobe rmdir rseq
    rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
    rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity
    sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop
    semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area
    set_tid_address set_tls setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer
    setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32
    setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaction
    sigaltstack signal signalfd signalfd4 sigpending sigprocmask sigreturn sigsuspend socketcall socketpair splice
    stat stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range sync_file_range2 syncfs sysinfo tee
    tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime
    timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill
    truncate truncate64 ugetrlimit umask uname unlink unlinkat utime utimensat utimensat_time64 utimes vfork
    vmsplice wait4 waitid waitpid write writev
"""

_BY_CAPABILITY = {
    "CAP_BPF": "bpf",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYSLOG": "syslog",
    "CAP_SYS_ADMIN": "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick listmount lookup_dcookie mount "
    "mount_setattr move_mount open_tree open_tree_attr perf_event_open pivot_root quotactl quotactl_fd setdomainname "
    "sethostname setns statmount syslog umount umount2 unshare",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev",
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "CAP_SYS_TTY_CONFIG": "vhangup",
}

_NAMESPACE_FLAGS = 0x7E020000
"""The CLONE_NEW* flags of clone(2)."""

_PERSONALITIES = (0x0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF)
"""LINUX, LINUX32, both with UNAME26, and the question what it is."""

_AF_ALG, _AF_VSOCK = 38, 40
"""Address families that lead past the network namespace, or into the kernel's cryptography."""

_SUBARCHITECTURES = {
    "amd64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "arm64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
    "arm": ("SCMP_ARCH_ARM",),
    "386": ("SCMP_ARCH_X86",),
    "s390x": ("SCMP_ARCH_S390X", "SCMP_ARCH_S390"),
    "ppc64le": ("SCMP_ARCH_PPC64LE",),
    "riscv64": ("SCMP_ARCH_RISCV64",),
    "loong64": ("SCMP_ARCH_LOONGARCH64",),
    "mips64le": ("SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64N32"),
}


def default_profile(
    architecture: str = "amd64", capabilities: Collection[str] = ()
) -> dict[str, Any]:
    """The profile for `linux.seccomp`.

    Args:
        architecture: As the image-spec writes it, `amd64`; its 32-bit relatives are allowed with it.
        capabilities: Those of the bounding set; each adds the calls that are of no use without it.

    Returns:
        A new object.

    >>> default_profile()["defaultAction"]
    'SCMP_ACT_ERRNO'
    """
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": list(_SUBARCHITECTURES.get(architecture, ())),
        "syscalls": list(_rules(architecture, capabilities)),
    }


def for_container(
    profile: Mapping[str, Any],
    *,
    architecture: str,
    capabilities: Collection[str],
    kernel: tuple[int, int],
) -> dict[str, Any]:
    """Docker's form of a profile, whose rules have conditions, as the one for a container.

    Args:
        profile: With `archMap`, and rules with `includes` and `excludes`.
        architecture: As the image-spec writes it.
        capabilities: Those of the container's bounding set.
        kernel: The first two numbers of its version.

    Returns:
        An object for `linux.seccomp`.

    Raises:
        InvalidConfigError: a condition is not known, or a value has not its shape.

    >>> rule = {"names": ["reboot"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_BOOT"]}}
    >>> profile = {"defaultAction": "SCMP_ACT_ERRNO", "archMap": [], "syscalls": [rule]}
    >>> for_container(profile, architecture="amd64", capabilities=(), kernel=(6, 1))["syscalls"]
    []
    """
    holds: dict[str, Callable[[Any], bool]] = {
        "arches": lambda value: _DOCKERS_NAMES.get(architecture, architecture) in value,
        "caps": lambda value: set(value) <= set(capabilities),
        "minKernel": lambda value: kernel >= tuple(map(int, value.split(".")))[:2],
    }

    def applies(rule: Mapping[str, Any]) -> bool:
        wanted, unwanted = rule.get("includes") or {}, rule.get("excludes") or {}
        return all(holds[name](value) for name, value in wanted.items() if value) and not any(
            holds[name](value) for name, value in _one_by_one(unwanted) if value
        )

    try:
        made = {name: profile[name] for name in _KEPT if name in profile}
        made["architectures"] = _related(profile["archMap"], architecture)
        made["syscalls"] = [
            {name: rule[name] for name in _OF_RULES if rule.get(name) not in (None, [])}
            for rule in profile.get("syscalls") or ()
            if applies(rule)
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise InvalidConfigError(f"seccomp profile: {type(exc).__name__}: {exc}") from exc
    return made


def _one_by_one(conditions: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Of several capabilities that exclude a rule, one is enough."""
    for name, value in conditions.items():
        yield from ((name, [each]) for each in value) if name == "caps" else ((name, value),)


def _related(table: Collection[Mapping[str, Any]], architecture: str) -> list[str]:
    """The architectures of a profile's table that programs of this one may call the kernel by."""
    native = _SUBARCHITECTURES.get(architecture, ("",))[0]
    return [
        name
        for entry in table
        if entry["architecture"] == native
        for name in (native, *(entry.get("subArchitectures") or ()))
    ]


_KEPT = ("defaultAction", "defaultErrnoRet", "flags")
_OF_RULES = ("names", "action", "errnoRet", "args")
_DOCKERS_NAMES = {"386": "x86"}


def _rules(architecture: str, capabilities: Collection[str]) -> Iterator[dict[str, Any]]:
    yield _allow(_ALLOWED.split())
    for family in (("LT", _AF_ALG), ("EQ", _AF_ALG + 1), ("GT", _AF_VSOCK)):
        yield _allow(["socket"], (0, f"SCMP_CMP_{family[0]}", family[1], 0))
    for persona in _PERSONALITIES:
        yield _allow(["personality"], (0, "SCMP_CMP_EQ", persona, 0))
    if "CAP_SYS_ADMIN" not in capabilities:
        flags = 1 if architecture == "s390x" else 0  # there the stack comes first
        yield _allow(["clone"], (flags, "SCMP_CMP_MASKED_EQ", _NAMESPACE_FLAGS, 0))
        # Its flags are in memory where no filter sees them; told that it is not there, the C library takes clone.
        yield {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
    for capability, names in _BY_CAPABILITY.items():
        if capability in capabilities:
            yield _allow(names.split())


def _allow(names: list[str], *conditions: tuple[int, str, int, int]) -> dict[str, Any]:
    rule: dict[str, Any] = {"names": names, "action": "SCMP_ACT_ALLOW"}
    if conditions:
        keys = ("index", "op", "value", "valueTwo")
        rule["args"] = [dict(zip(keys, each, strict=True)) for each in conditions]
    return rule
