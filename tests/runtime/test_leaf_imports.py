"""What the modules of cgroups, seccomp and the network bring in: nothing that costs."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

SOURCE = pathlib.Path(__file__).parents[2] / "src" / "argosy"
FREE = frozenset(
    (
        "__future__",
        "_blake2",
        "_ctypes",
        "_socket",
        "_struct",
        "errno",
        "marshal",
        "posix",
        "select",
        "time",
    )
)

FIND = "import argosy.runtime.cgroups as c; g = c.load({{'driver': '{}', 'paths': {{}}}}); g.pids(); g.destroy()"
EVERYTHING = (
    "cgroups cgroups.v1 cgroups.v2 cgroups.systemd cgroups.dbus cgroups.gvariant cgroups.unitname cgroups.unitprops cgroups.limits1 "
    "cgroups.limits2 cgroups.stats1 cgroups.stats2 cgroups.devices cgroups.devicebpf seccomp libseccomp enosys "
    "filtercache netlink netdevices intelrdt features"
)


def loaded(statement: str) -> set[str]:
    """The modules that a statement loads, in an interpreter as the runtime has it."""
    program = f"""
import sys
room = type(sys)("argosy")
room.__path__ = [{str(SOURCE)!r}]
sys.modules["argosy"] = room
before = set(sys.modules)
{statement}
print(*(set(sys.modules) - before))
"""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_all_of_it_imports_only_what_is_nearly_free() -> None:
    names = ", ".join(f"argosy.runtime.{name}" for name in EVERYTHING.split())
    foreign = {name for name in loaded(f"import {names}") if not name.startswith("argosy")}
    assert foreign <= FREE, foreign - FREE


@pytest.mark.parametrize("driver", ["v1", "v2"])
def test_finding_killing_and_destroying_a_cgroup_loads_no_limits(driver: str) -> None:
    found = loaded(FIND.format(driver))
    ours = {
        name.removeprefix("argosy.runtime.") for name in found if name.startswith("argosy.runtime.")
    }
    assert ours == {
        "cgroups",
        "cgroups.cgroup",
        "cgroups.files",
        "cgroups.layout",
        f"cgroups.{driver}",
        "errors",
    }


def test_preparing_nothing_of_seccomp_loads_no_library() -> None:
    assert not {"_ctypes", "argosy.runtime.libseccomp"} & loaded("import argosy.runtime.seccomp")
