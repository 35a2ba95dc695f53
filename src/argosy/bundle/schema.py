"""The shape of `config.json` (runtime-spec 1.3, config.md and config-linux.md) as a JSON Schema, and its checker.

`CONFIG` is an ordinary JSON Schema document (draft 2020-12), written here as Python from the specification. Only the
words of JSON Schema that it uses are implemented: what a runtime must check is little, and the errors shall name the
property the way people write it, `linux.resources.devices[0].type`. Properties the schema does not know are allowed,
as the specification demands; `unknown` finds them. What a schema cannot say is in `argosy.bundle.rules`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["CONFIG", "unknown", "violations"]

Schema = dict[str, Any]


def _object(*required: str, **properties: Schema) -> Schema:
    found: Schema = {"type": "object", "properties": properties}
    return {**found, "required": list(required)} if required else found


def _list(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def _map(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


def _integer(low: int, high: int) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high}


def _one_of(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def _named(prefix: str, names: str) -> Schema:
    return _one_of(*(prefix + name for name in names.split()))


TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
TEXTS = _list(TEXT)
U16, U32, U64 = _integer(0, (1 << 16) - 1), _integer(0, (1 << 32) - 1), _integer(0, (1 << 64) - 1)
I32, I64 = _integer(-1 << 31, (1 << 31) - 1), _integer(-1 << 63, (1 << 63) - 1)
ABSOLUTE: Schema = {"type": "string", "pattern": "^/"}
CPUS: Schema = {"type": "string", "pattern": "^[0-9, -]*$"}

HOOK = _object(
    "path", path=ABSOLUTE, args=TEXTS, env=TEXTS, timeout={"type": "integer", "minimum": 1}
)
ID_MAPPING = _object("containerID", "hostID", "size", containerID=U32, hostID=U32, size=U32)
MOUNT = _object(
    "destination",
    destination=TEXT,
    source=TEXT,
    type=TEXT,
    options=TEXTS,
    uidMappings=_list(ID_MAPPING),
    gidMappings=_list(ID_MAPPING),
)

CAPABILITY_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")
PROCESS = _object(
    "cwd",
    terminal=FLAG,
    consoleSize=_object("height", "width", height=U64, width=U64),
    cwd=ABSOLUTE,
    env=TEXTS,
    args=TEXTS,
    commandLine=TEXT,
    user=_object(uid=U32, gid=U32, umask=U32, additionalGids=_list(U32), username=TEXT),
    capabilities=_object(**dict.fromkeys(CAPABILITY_SETS, TEXTS)),
    rlimits=_list(
        _object(
            "type",
            "soft",
            "hard",
            type={"type": "string", "pattern": "^RLIMIT_[A-Z]+$"},
            soft=U64,
            hard=U64,
        )
    ),
    noNewPrivileges=FLAG,
    apparmorProfile=TEXT,
    oomScoreAdj=_integer(-1000, 1000),
    selinuxLabel=TEXT,
    ioPriority=_object(
        "class", **{"class": _named("IOPRIO_CLASS_", "RT BE IDLE")}, priority=_integer(0, 7)
    ),
    scheduler=_object(
        "policy",
        policy=_named("SCHED_", "OTHER FIFO RR BATCH ISO IDLE DEADLINE"),
        nice=_integer(-20, 19),
        priority=I32,
        flags=_list(
            _named(
                "SCHED_FLAG_",
                "RESET_ON_FORK RECLAIM DL_OVERRUN KEEP_POLICY KEEP_PARAMS UTIL_CLAMP_MIN UTIL_CLAMP_MAX",
            )
        ),
        runtime=U64,
        deadline=U64,
        period=U64,
    ),
    execCPUAffinity=_object(initial=CPUS, final=CPUS),
)

DEVICE_NUMBERS = {"major": I64, "minor": I64}
THROTTLED = _list(_object("major", "minor", "rate", **DEVICE_NUMBERS, rate=U64))
RESOURCES = _object(
    unified=_map(TEXT),
    devices=_list(
        _object(
            "allow",
            allow=FLAG,
            type={"type": "string", "pattern": "^[abc]?$"},
            access={"type": "string", "pattern": "^[rwm]*$"},
            **DEVICE_NUMBERS,
        )
    ),
    pids=_object("limit", limit=I64),
    blockIO=_object(
        weight=U16,
        leafWeight=U16,
        weightDevice=_list(_object("major", "minor", **DEVICE_NUMBERS, weight=U16, leafWeight=U16)),
        throttleReadBpsDevice=THROTTLED,
        throttleWriteBpsDevice=THROTTLED,
        throttleReadIOPSDevice=THROTTLED,
        throttleWriteIOPSDevice=THROTTLED,
    ),
    cpu=_object(
        shares=U64,
        quota=I64,
        burst=U64,
        period=U64,
        realtimeRuntime=I64,
        realtimePeriod=U64,
        cpus=TEXT,
        mems=TEXT,
        idle=_integer(0, 1),
    ),
    hugepageLimits=_list(
        _object(
            "pageSize",
            "limit",
            pageSize={"type": "string", "pattern": "^[1-9][0-9]*[KMGT]B$"},
            limit=U64,
        )
    ),
    memory=_object(
        limit=I64,
        reservation=I64,
        swap=I64,
        kernel=I64,
        kernelTCP=I64,
        swappiness=_integer(0, 100),
        disableOOMKiller=FLAG,
        useHierarchy=FLAG,
        checkBeforeUpdate=FLAG,
    ),
    network=_object(
        classID=U32, priorities=_list(_object("name", "priority", name=TEXT, priority=U32))
    ),
    rdma=_map(_object(hcaHandles=U32, hcaObjects=U32)),
)

ACTION = _named("SCMP_ACT_", "KILL KILL_PROCESS KILL_THREAD TRAP ERRNO TRACE ALLOW LOG NOTIFY")
SECCOMP = _object(
    "defaultAction",
    defaultAction=ACTION,
    defaultErrnoRet=U32,
    architectures=_list(
        _named(
            "SCMP_ARCH_",
            "X86 X86_64 X32 ARM AARCH64 MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE S390 "
            "S390X PARISC PARISC64 RISCV64 LOONGARCH64 M68K SH SHEB",
        )
    ),
    flags=_list(_named("SECCOMP_FILTER_FLAG_", "TSYNC LOG SPEC_ALLOW WAIT_KILLABLE_RECV")),
    listenerPath=TEXT,
    listenerMetadata=TEXT,
    syscalls=_list(
        _object(
            "names",
            "action",
            names=_list(TEXT, minItems=1),
            action=ACTION,
            errnoRet=U32,
            args=_list(
                _object(
                    "index",
                    "value",
                    "op",
                    index=_integer(0, 5),
                    value=U64,
                    valueTwo=U64,
                    op=_named("SCMP_CMP_", "NE LT LE EQ GE GT MASKED_EQ"),
                )
            ),
        )
    ),
)

LINUX = _object(
    namespaces=_list(
        _object(
            "type",
            type=_one_of("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"),
            path=ABSOLUTE,
        )
    ),
    uidMappings=_list(ID_MAPPING),
    gidMappings=_list(ID_MAPPING),
    timeOffsets=_map(_object(secs=I64, nanosecs=_integer(0, 999_999_999))),
    devices=_list(
        _object(
            "type",
            "path",
            type={"type": "string", "pattern": "^[cbup]$"},
            path=ABSOLUTE,
            fileMode=_integer(0, 0o7777),
            uid=U32,
            gid=U32,
            **DEVICE_NUMBERS,
        )
    ),
    netDevices=_map(_object(name=TEXT)),
    cgroupsPath=TEXT,
    resources=RESOURCES,
    rootfsPropagation=_one_of(
        "private", "shared", "slave", "unbindable", "rprivate", "rshared", "rslave", "runbindable"
    ),
    seccomp=SECCOMP,
    sysctl=_map(TEXT),
    maskedPaths=_list(ABSOLUTE),
    readonlyPaths=_list(ABSOLUTE),
    mountLabel=TEXT,
    intelRdt=_object(
        closID=TEXT,
        schemata=TEXTS,
        l3CacheSchema=TEXT,
        memBwSchema={"type": "string", "pattern": r"^(MB:[^\n]*)?$"},
        enableMonitoring=FLAG,
    ),
    memoryPolicy=_object(
        "mode",
        mode=_named(
            "MPOL_", "DEFAULT BIND INTERLEAVE WEIGHTED_INTERLEAVE PREFERRED PREFERRED_MANY LOCAL"
        ),
        nodes=CPUS,
        flags=_list(_named("MPOL_F_", "NUMA_BALANCING RELATIVE_NODES STATIC_NODES")),
    ),
    personality=_object("domain", domain=_one_of("LINUX", "LINUX32"), flags=TEXTS),
)

HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
OTHER_PLATFORMS = ("solaris", "windows", "vm", "zos", "freebsd")

CONFIG: Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "config.json of an OCI bundle for Linux, runtime-spec 1.3",
    **_object(
        "ociVersion",
        ociVersion={"type": "string", "pattern": r"^[0-9]+\.[0-9]+\.[0-9]+([-+].*)?$"},
        root=_object("path", path=TEXT, readonly=FLAG),
        process=PROCESS,
        hostname=TEXT,
        domainname=TEXT,
        mounts=_list(MOUNT),
        hooks=_object(**dict.fromkeys(HOOKS, _list(HOOK))),
        annotations=_map(TEXT),
        linux=LINUX,
        **{name: {"type": "object"} for name in OTHER_PLATFORMS},
    ),
}

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
}


def violations(
    value: object, schema: Mapping[str, Any] = CONFIG, where: str = ""
) -> Iterator[tuple[str, str]]:
    """What in a value breaks the schema, as pairs of the property's place and the reason.

    Args:
        value: A parsed JSON value. A null where the specification has an optional property stands for its absence.
        schema: The schema, `CONFIG` or a part of it.
        where: The value's place.

    >>> list(violations({"ociVersion": "1.3.0", "mounts": [{"destination": 5}]}))
    [('mounts[0].destination', 'expected a string, got 5')]
    """
    kind = schema.get("type")
    if kind and not _is(value, kind):
        yield where, f"expected {_ARTICLES[kind]}, got {_shown(value)}"
        return
    for word, check in _WORDS.items():
        if word in schema:
            yield from check(value, schema, where)


def unknown(value: object, schema: Mapping[str, Any] = CONFIG, where: str = "") -> Iterator[str]:
    """The places of properties that the schema does not know, which a runtime must ignore.

    >>> list(unknown({"ociVersion": "1.3.0", "linux": {"rootfsPropogation": "shared"}}))
    ['linux.rootfsPropogation']
    """
    if isinstance(value, dict) and schema.get("type") == "object":
        known = schema.get("properties", {})
        rest = schema.get("additionalProperties")
        for name, each in value.items():
            if name in known or rest:
                yield from unknown(each, known.get(name, rest), _join(where, name))
            elif known:
                yield _join(where, name)
    elif isinstance(value, list) and "items" in schema:
        for n, each in enumerate(value):
            yield from unknown(each, schema["items"], f"{where}[{n}]")


_ARTICLES = {
    "object": "an object",
    "array": "an array",
    "string": "a string",
    "integer": "an integer",
    "boolean": "true or false",
}

Found = Iterator[tuple[str, str]]


def _is(value: object, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return _ARTICLES["object" if isinstance(value, dict) else "array"]
    text = (
        {True: "true", False: "false", None: "null"}[value]
        if value is None or isinstance(value, bool)
        else repr(value)
    )
    return text if len(text) <= 80 else text[:79] + "…"


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _required(value: Any, schema: Mapping[str, Any], where: str) -> Found:
    for name in schema["required"]:
        if value.get(name) is None:
            yield _join(where, name), "this property is required"


def _properties(value: Any, schema: Mapping[str, Any], where: str) -> Found:
    for name, inner in schema["properties"].items():
        if value.get(name) is not None:
            yield from violations(value[name], inner, _join(where, name))


def _additional(value: Any, schema: Mapping[str, Any], where: str) -> Found:
    for name, each in value.items():
        yield from violations(each, schema["additionalProperties"], _join(where, name))


def _items(value: Any, schema: Mapping[str, Any], where: str) -> Found:
    for n, each in enumerate(value):
        yield from violations(each, schema["items"], f"{where}[{n}]")


def _at_least_items(value: Any, schema: Mapping[str, Any], where: str) -> Found:
    if len(value) < schema["minItems"]:
        yield where, f"expected at least {schema['minItems']} item(s), got {len(value)}"


def _enum(value: Any, schema: Mapping[str, Any], where: str) -> Found:
    if value not in schema["enum"]:
        yield where, f"expected one of {', '.join(schema['enum'])}; got {_shown(value)}"


def _pattern(value: Any, schema: Mapping[str, Any], where: str) -> Found:
    if re.search(schema["pattern"], value) is None:
        wanted = _PATTERNS.get(schema["pattern"], f"a string that matches {schema['pattern']}")
        yield where, f"expected {wanted}, got {_shown(value)}"


_PATTERNS: Mapping[str, str] = {
    "^/": "an absolute path",
    "^[abc]?$": "a, b or c",
    "^[cbup]$": "c, b, u or p",
    "^[rwm]*$": "letters of rwm",
    "^[0-9, -]*$": "a list such as 0-3,7",
}


def _bounds(value: Any, schema: Mapping[str, Any], where: str) -> Found:
    low, high = schema["minimum"], schema.get("maximum")
    if value < low or (high is not None and value > high):
        upper = f" to {high}" if high is not None else " or more"
        yield where, f"expected {low}{upper}, got {value}"


_WORDS: Mapping[str, Callable[[Any, Mapping[str, Any], str], Found]] = {
    "required": _required,
    "properties": _properties,
    "additionalProperties": _additional,
    "items": _items,
    "minItems": _at_least_items,
    "enum": _enum,
    "pattern": _pattern,
    "minimum": _bounds,
}


def parts(schema: Mapping[str, Any], path: Sequence[str]) -> Mapping[str, Any]:
    """The part of a schema that speaks of a property, for editors.

    Args:
        schema: Where to begin.
        path: Names of properties, one below the other; the items of an array are reached by any name.

    Raises:
        KeyError: The schema knows no such property.

    >>> parts(CONFIG, ("process", "terminal"))
    {'type': 'boolean'}
    """
    for name in path:
        if "items" in schema:
            schema = schema["items"]
        elif name in schema.get("properties", {}):
            schema = schema["properties"][name]
        else:
            schema = schema["additionalProperties"]
    return schema
