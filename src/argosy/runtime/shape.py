"""What config.json must look like: one table of properties and types, one small checker.

Properties the table does not name are ignored, as the specification demands; a property it names with a value of
another type is refused by its path.
"""

from __future__ import annotations

from argosy.runtime.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

U16, U32, U64 = (0, 0xFFFF), (0, 0xFFFFFFFF), (0, 0xFFFFFFFFFFFFFFFF)
I32, I64 = (-(1 << 31), (1 << 31) - 1), (-(1 << 63), (1 << 63) - 1)
# The id after these means "leave it" to setresuid(2) and chown(2): who asks for it would stay root.
ID = (0, 0xFFFFFFFE)
MAJOR, MINOR = (0, 0xFFF), (0, 0xFFFFF)  # what the kernel has bits for

# A shape is a type; a (low, high) pair of integers; a list of one shape (array); {"*": shape} (a map) or a dictionary.
_NEEDED = None  # in a dictionary, the key (no property's name) of the properties that must be there
_STRINGS = [str]
_MAP = {"*": str}
_MAPPINGS = [
    {"containerID": U32, "hostID": U32, "size": U32, _NEEDED: ("containerID", "hostID", "size")}
]
_HOOKS = [{"path": str, "args": _STRINGS, "env": _STRINGS, "timeout": I64}]
_DEVICE_LIMIT = [{"major": I64, "minor": I64, "rate": U64, _NEEDED: ("major", "minor", "rate")}]
# fmt: off
PROCESS: dict[str, Any] = {
    "terminal": bool, "consoleSize": {"height": U32, "width": U32}, "cwd": str, "env": _STRINGS, "args": _STRINGS,
    "user": {"uid": ID, "gid": ID, "umask": U32, "additionalGids": [ID]},
    "rlimits": [{"type": str, "soft": U64, "hard": U64}],
    "capabilities": {
        "bounding": _STRINGS, "effective": _STRINGS, "inheritable": _STRINGS, "permitted": _STRINGS,
        "ambient": _STRINGS,
    },
    "noNewPrivileges": bool, "oomScoreAdj": I32, "apparmorProfile": str, "selinuxLabel": str,
    "scheduler": {
        "policy": str, "nice": I32, "priority": I32, "flags": _STRINGS, "runtime": U64, "deadline": U64, "period": U64,
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
            {"major": I64, "minor": I64, "weight": U16, "leafWeight": U16, _NEEDED: ("major", "minor")},
        ],
        "throttleReadBpsDevice": _DEVICE_LIMIT, "throttleWriteBpsDevice": _DEVICE_LIMIT,
        "throttleReadIOPSDevice": _DEVICE_LIMIT, "throttleWriteIOPSDevice": _DEVICE_LIMIT,
    },
    "hugepageLimits": [{"pageSize": str, "limit": U64, _NEEDED: ("pageSize", "limit")}],
    "network": {
        "classID": U32, "priorities": [{"name": str, "priority": U32, _NEEDED: ("name", "priority")}],
    },
    "rdma": {"*": {"hcaHandles": U32, "hcaObjects": U32}},
    "unified": _MAP,
}
CONFIG: dict[str, Any] = {
    "ociVersion": str, "hostname": str, "domainname": str, "annotations": _MAP,
    "root": {"path": str, "readonly": bool},
    "process": PROCESS,
    "mounts": [{
        "destination": str, "type": str, "source": str, "options": _STRINGS, "uidMappings": _MAPPINGS,
        "gidMappings": _MAPPINGS,
    }],
    "hooks": {
        "prestart": _HOOKS, "createRuntime": _HOOKS, "createContainer": _HOOKS, "startContainer": _HOOKS,
        "poststart": _HOOKS, "poststop": _HOOKS,
    },
    "linux": {
        "namespaces": [{"type": str, "path": str}],
        "uidMappings": _MAPPINGS, "gidMappings": _MAPPINGS,
        "timeOffsets": {"*": {"secs": I64, "nanosecs": U32}},
        "devices": [{
            "path": str, "type": str, "major": MAJOR, "minor": MINOR, "fileMode": U32, "uid": ID, "gid": ID,
        }],
        "netDevices": {"*": {"name": str}},
        "cgroupsPath": str, "resources": RESOURCES, "rootfsPropagation": str,
        "seccomp": {
            "defaultAction": str, "defaultErrnoRet": U32, "architectures": _STRINGS, "flags": _STRINGS,
            "listenerPath": str, "listenerMetadata": str,
            "syscalls": [{
                "names": _STRINGS, "action": str, "errnoRet": U32,
                "args": [{"index": U32, "value": U64, "valueTwo": U64, "op": str}],
            }],
        },
        "sysctl": _MAP, "maskedPaths": _STRINGS, "readonlyPaths": _STRINGS, "mountLabel": str,
        "intelRdt": {
            "closID": str, "l3CacheSchema": str, "memBwSchema": str, "schemata": _STRINGS, "enableMonitoring": bool,
            "enableCMT": bool, "enableMBM": bool,
        },
        "memoryPolicy": {"mode": str, "nodes": str, "flags": _STRINGS},
        "personality": {"domain": str, "flags": _STRINGS},
    },
}
# fmt: on
_WORDS = {str: "a string", bool: "true or false"}


def check(value: Any, shape: Any, where: str) -> None:
    """Refuse a value that has not the shape; null stands for a missing property.

    Raises:
        ConfigError: names the property.

    Example:
        >>> check([{"pageSize": "2MB"}], RESOURCES["hugepageLimits"], "limits")
        Traceback (most recent call last):
        ...
        argosy.runtime.errors.ConfigError: invalid configuration: limits[0].limit: is missing
    """
    if isinstance(shape, list):
        _check_array(value, shape[0], where)
    elif isinstance(shape, dict):
        _check_object(value, shape, where)
    elif isinstance(shape, tuple):
        if type(value) is not int or not shape[0] <= value <= shape[1]:
            raise ConfigError(
                where, f"expected an integer from {shape[0]} to {shape[1]}, got {value!r:.80}"
            )
    elif type(value) is not shape:
        raise ConfigError(where, f"expected {_WORDS[shape]}, got {value!r:.80}")
    elif shape is str:
        _check_text(value, where)


def _check_text(value: str, where: str) -> None:
    """What goes to the kernel has an end and is UTF-8: of Python's strings, those without lone surrogates."""
    if "\0" in value:
        raise ConfigError(where, "contains a NUL byte")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ConfigError(where, f"{value!r:.80} has half of a surrogate pair") from None


def _check_array(value: Any, item: Any, where: str) -> None:
    if not isinstance(value, list):
        raise ConfigError(where, f"expected an array, got {value!r:.80}")
    if item is str and all(type(e) is str and e.isascii() and "\0" not in e for e in value):
        return
    for index, entry in enumerate(value):
        check(entry, item, f"{where}[{index}]")


def _check_object(value: Any, shape: dict[str | None, Any], where: str) -> None:
    if not isinstance(value, dict):
        raise ConfigError(where, f"expected an object, got {value!r:.80}")
    for name in shape.get(_NEEDED, ()):
        if value.get(name) is None:
            raise ConfigError(f"{where}.{name}", "is missing")
    rest = shape.get("*")
    for name, entry in value.items():
        if rest:
            _check_text(name, where)
        inner = rest or shape.get(name)
        if inner is not None and entry is not None:
            check(entry, inner, f"{where}.{name}" if where else name)


def prune(value: Any) -> Any:
    """The document without its null properties: the specification's "missing" and JSON's null are one thing."""
    if isinstance(value, dict):
        return {name: prune(entry) for name, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [prune(entry) for entry in value]
    return value
