"""What config.json must look like: one table of properties and types, for `judge`."""

from __future__ import annotations

from argosy.runtime.judge import ANY, HOOKS, I32, I64, MAP, NEEDED, STRINGS, U16, U32, U64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The id after these means "leave it" to setresuid(2) and chown(2): who asks for it would stay root.
ID = (0, 0xFFFFFFFE)
MAJOR, MINOR = (0, 0xFFF), (0, 0xFFFFF)  # what the kernel has bits for

_MAPPINGS = [
    {"containerID": U32, "hostID": U32, "size": U32, NEEDED: ("containerID", "hostID", "size")}
]
_DEVICE_LIMIT = [{"major": I64, "minor": I64, "rate": U64, NEEDED: ("major", "minor", "rate")}]
# fmt: off
PROCESS: dict[Any, Any] = {
    "terminal": bool, "consoleSize": {"height": U32, "width": U32}, "cwd": str, "env": STRINGS, "args": STRINGS,
    "user": {"uid": ID, "gid": ID, "umask": U32, "additionalGids": [ID]},
    "rlimits": [{"type": str, "soft": U64, "hard": U64}],
    "capabilities": {
        "bounding": STRINGS, "effective": STRINGS, "inheritable": STRINGS, "permitted": STRINGS,
        "ambient": STRINGS,
    },
    "noNewPrivileges": bool, "oomScoreAdj": I32, "apparmorProfile": str, "selinuxLabel": str,
    "scheduler": {
        "policy": str, "nice": I32, "priority": I32, "flags": STRINGS, "runtime": U64, "deadline": U64, "period": U64,
    },
    "ioPriority": {"class": str, "priority": I64},
    "execCPUAffinity": {"initial": str, "final": str},
}
RESOURCES: dict[str, Any] = {
    "devices": [{"allow": bool, "type": str, "major": I64, "minor": I64, "access": str}],
    "memory": {
        "limit": I64, "reservation": I64, "swap": I64, "kernel": I64, "kernelTCP": I64, "swappiness": U64,
        "disableOOMKiller": bool, "useHierarchy": bool, "checkBeforeUpdate": bool,
    },
    "cpu": {
        "shares": U64, "quota": I64, "burst": U64, "period": U64, "realtimeRuntime": I64, "realtimePeriod": U64,
        "cpus": str, "mems": str, "idle": I64,
    },
    "pids": {"limit": I64},
    "blockIO": {
        "weight": U16, "leafWeight": U16,
        "weightDevice": [
            {"major": I64, "minor": I64, "weight": U16, "leafWeight": U16, NEEDED: ("major", "minor")},
        ],
        "throttleReadBpsDevice": _DEVICE_LIMIT, "throttleWriteBpsDevice": _DEVICE_LIMIT,
        "throttleReadIOPSDevice": _DEVICE_LIMIT, "throttleWriteIOPSDevice": _DEVICE_LIMIT,
    },
    "hugepageLimits": [{"pageSize": str, "limit": U64, NEEDED: ("pageSize", "limit")}],
    "network": {
        "classID": U32, "priorities": [{"name": str, "priority": U32, NEEDED: ("name", "priority")}],
    },
    "rdma": {ANY: {"hcaHandles": U32, "hcaObjects": U32}},
    "unified": MAP,
}
CONFIG: dict[str, Any] = {
    "ociVersion": str, "hostname": str, "domainname": str, "annotations": MAP,
    "root": {"path": str, "readonly": bool},
    "process": PROCESS,
    "mounts": [{
        "destination": str, "type": str, "source": str, "options": STRINGS, "uidMappings": _MAPPINGS,
        "gidMappings": _MAPPINGS,
    }],
    "hooks": {
        "prestart": HOOKS, "createRuntime": HOOKS, "createContainer": HOOKS, "startContainer": HOOKS,
        "poststart": HOOKS, "poststop": HOOKS,
    },
    "linux": {
        "namespaces": [{"type": str, "path": str}],
        "uidMappings": _MAPPINGS, "gidMappings": _MAPPINGS,
        "timeOffsets": {ANY: {"secs": I64, "nanosecs": U32}},
        "devices": [{
            "path": str, "type": str, "major": MAJOR, "minor": MINOR, "fileMode": U32, "uid": ID, "gid": ID,
        }],
        "netDevices": {ANY: {"name": str}},
        "cgroupsPath": str, "resources": RESOURCES, "rootfsPropagation": str,
        "seccomp": {
            "defaultAction": str, "defaultErrnoRet": U32, "architectures": STRINGS, "flags": STRINGS,
            "listenerPath": str, "listenerMetadata": str,
            "syscalls": [{
                "names": STRINGS, "action": str, "errnoRet": U32,
                "args": [{"index": U32, "value": U64, "valueTwo": U64, "op": str}],
            }],
        },
        "sysctl": MAP, "maskedPaths": STRINGS, "readonlyPaths": STRINGS, "mountLabel": str,
        "intelRdt": {
            "closID": str, "l3CacheSchema": str, "memBwSchema": str, "schemata": STRINGS, "enableMonitoring": bool,
            "enableCMT": bool, "enableMBM": bool,
        },
        "memoryPolicy": {"mode": str, "nodes": str, "flags": STRINGS},
        "personality": {"domain": str, "flags": STRINGS},
    },
}
# fmt: on
