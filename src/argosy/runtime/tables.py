"""The specification's words as the kernel's numbers. Data only."""

from __future__ import annotations

from argosy.runtime import kernel as k

# fmt: off
NAMESPACES = {
    "user": k.CLONE_NEWUSER, "ipc": k.CLONE_NEWIPC, "uts": k.CLONE_NEWUTS, "network": k.CLONE_NEWNET,
    "pid": k.CLONE_NEWPID, "mount": k.CLONE_NEWNS, "cgroup": k.CLONE_NEWCGROUP, "time": k.CLONE_NEWTIME,
}
"""In the order in which they are joined."""

NAMESPACE_FILES = {
    "user": "user", "ipc": "ipc", "uts": "uts", "network": "net", "pid": "pid", "mount": "mnt", "cgroup": "cgroup",
    "time": "time",
}

CAPABILITIES = {f"CAP_{name}": number for number, name in enumerate((
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
))}
CAPABILITY_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")

RLIMITS = {f"RLIMIT_{name}": number for number, name in enumerate((
    "CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS", "SIGPENDING",
    "MSGQUEUE", "NICE", "RTPRIO", "RTTIME",
))}

SIGNALS = {
    "HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "IOT": 6, "BUS": 7, "FPE": 8, "KILL": 9, "USR1": 10,
    "SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15, "STKFLT": 16, "CHLD": 17, "CLD": 17, "CONT": 18,
    "STOP": 19, "TSTP": 20, "TTIN": 21, "TTOU": 22, "URG": 23, "XCPU": 24, "XFSZ": 25, "VTALRM": 26, "PROF": 27,
    "WINCH": 28, "IO": 29, "POLL": 29, "PWR": 30, "SYS": 31, "UNUSED": 31,
    **{f"RTMIN+{n}": 34 + n for n in range(31)}, **{f"RTMAX-{n}": 64 - n for n in range(31)}, "RTMIN": 34, "RTMAX": 64,
}

SCHED_POLICIES = {
    "SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_ISO": 4, "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
SCHED_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01, "SCHED_FLAG_RECLAIM": 0x02, "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08, "SCHED_FLAG_KEEP_PARAMS": 0x10, "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
PERSONALITIES = {"LINUX": 0x0000, "LINUX32": 0x0008}
MEMORY_MODES = {
    "MPOL_DEFAULT": 0, "MPOL_PREFERRED": 1, "MPOL_BIND": 2, "MPOL_INTERLEAVE": 3, "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5, "MPOL_WEIGHTED_INTERLEAVE": 6,
}
MEMORY_FLAGS = {"MPOL_F_STATIC_NODES": 1 << 15, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_NUMA_BALANCING": 1 << 13}

# Mount options. What a mount has of its own (attributes) and what belongs to the file system's super block (flags of
# mount(2), names of fsconfig(2)) are different things in the kernel.
ATTRIBUTES: dict[str, tuple[int, int]] = {  # option: attributes to set, attributes to clear
    "ro": (k.MOUNT_ATTR_RDONLY, 0), "rw": (0, k.MOUNT_ATTR_RDONLY),
    "nosuid": (k.MOUNT_ATTR_NOSUID, 0), "suid": (0, k.MOUNT_ATTR_NOSUID),
    "nodev": (k.MOUNT_ATTR_NODEV, 0), "dev": (0, k.MOUNT_ATTR_NODEV),
    "noexec": (k.MOUNT_ATTR_NOEXEC, 0), "exec": (0, k.MOUNT_ATTR_NOEXEC),
    "nodiratime": (k.MOUNT_ATTR_NODIRATIME, 0), "diratime": (0, k.MOUNT_ATTR_NODIRATIME),
    "nosymfollow": (k.MOUNT_ATTR_NOSYMFOLLOW, 0), "symfollow": (0, k.MOUNT_ATTR_NOSYMFOLLOW),
    "noatime": (k.MOUNT_ATTR_NOATIME, k.MOUNT_ATTR__ATIME), "atime": (0, k.MOUNT_ATTR__ATIME),
    "relatime": (k.MOUNT_ATTR_RELATIME, k.MOUNT_ATTR__ATIME), "norelatime": (0, 0),
    "strictatime": (k.MOUNT_ATTR_STRICTATIME, k.MOUNT_ATTR__ATIME), "nostrictatime": (0, 0),
}
RECURSIVE_ATTRIBUTES = {
    **{f"r{option}": pair for option, pair in ATTRIBUTES.items()},
    "rnorelatime": (0, k.MOUNT_ATTR__ATIME), "rnostrictatime": (0, k.MOUNT_ATTR__ATIME),
}
SUPER_FLAGS: dict[str, tuple[str, bool]] = {  # option: fsconfig flag, set or clear
    "sync": ("sync", True), "async": ("sync", False), "dirsync": ("dirsync", True),
    "lazytime": ("lazytime", True), "nolazytime": ("lazytime", False),
    "mand": ("mand", True), "nomand": ("mand", False),
}
IGNORED_OPTIONS = ("defaults", "loud", "silent", "iversion", "noiversion", "remount")
PROPAGATION = {
    "private": (k.MS_PRIVATE, False), "rprivate": (k.MS_PRIVATE, True),
    "shared": (k.MS_SHARED, False), "rshared": (k.MS_SHARED, True),
    "slave": (k.MS_SLAVE, False), "rslave": (k.MS_SLAVE, True),
    "unbindable": (k.MS_UNBINDABLE, False), "runbindable": (k.MS_UNBINDABLE, True),
}
BINDS = {"bind": False, "rbind": True}
IDMAPS = {"idmap": False, "ridmap": True}

DEFAULT_DEVICES = (  # path, major, minor
    ("/dev/null", 1, 3), ("/dev/zero", 1, 5), ("/dev/full", 1, 7), ("/dev/tty", 5, 0), ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
)
DEVICE_LINKS = (
    ("/proc/self/fd", "/dev/fd"), ("/proc/self/fd/0", "/dev/stdin"), ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
)
PROC_MOUNTS = (
    "cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "sys/kernel/ns_last_pid",
    "sys/crypto/fips_enabled",
)
"""What may be mounted under /proc (files that lxcfs emulates)."""
IPC_SYSCTLS = (
    "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni",
    "kernel.shm_rmid_forced",
)
# fmt: on
