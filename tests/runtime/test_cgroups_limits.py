"""Resources as writes to control files: golden values in directories of plain files."""

from __future__ import annotations

import math
import pathlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.runtime.cgroups import limits1, limits2
from argosy.runtime.errors import ConfigError, Failure
from tests.runtime.cgroupkit import files, written

FULL: dict[str, Any] = {
    "memory": {
        "limit": 1000,
        "swap": 3000,
        "reservation": 500,
        "kernel": 7,
        "kernelTCP": 8,
        "useHierarchy": True,
    },
    "cpu": {
        "quota": 20000,
        "period": 50000,
        "burst": 100,
        "idle": 0,
        "shares": 1024,
        "cpus": "0-1",
        "mems": "0",
    },
    "pids": {"limit": 0},
    "blockIO": {
        "weight": 500,
        "weightDevice": [{"major": 8, "minor": 0, "weight": 300}],
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
        "throttleWriteBpsDevice": [{"major": 8, "minor": 1, "rate": 700}],
        "throttleReadIOPSDevice": [{"major": 8, "minor": 2, "rate": 800}],
        "throttleWriteIOPSDevice": [{"major": 8, "minor": 3, "rate": 900}],
    },
    "hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}],
    "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}},
}


def legacy_dirs(place: pathlib.Path) -> dict[str, str]:
    return {
        "memory": files(
            place / "memory",
            memory__limit_in_bytes="9223372036854771712",
            memory__memsw__limit_in_bytes="",
            memory__soft_limit_in_bytes="",
            memory__swappiness="",
            memory__oom_control="",
        ),
        "cpu": files(
            place / "cpu",
            cpu__shares="",
            cpu__cfs_quota_us="",
            cpu__cfs_period_us="",
            cpu__cfs_burst_us="",
            cpu__idle="",
            cpu__rt_period_us="",
            cpu__rt_runtime_us="",
        ),
        "cpuset": files(place / "cpuset", cpuset__cpus="", cpuset__mems=""),
        "pids": files(place / "pids", pids__max=""),
        "blkio": files(
            place / "blkio",
            blkio__weight="",
            blkio__leaf_weight="",
            blkio__weight_device="",
            blkio__leaf_weight_device="",
            **{file.replace(".", "__"): "" for _, file in limits1.THROTTLES},
        ),
        "hugetlb": files(
            place / "hugetlb",
            hugetlb__2MB__limit_in_bytes="",
            hugetlb__2MB__rsvd__limit_in_bytes="",
        ),
        "net_cls": files(place / "net_cls", net_cls__classid=""),
        "net_prio": files(place / "net_prio", net_prio__ifpriomap=""),
        "rdma": files(place / "rdma", rdma__max=""),
    }


def unified_dir(place: pathlib.Path, *names: str) -> str:
    empty = dict.fromkeys(
        (
            *(
                "memory__max",
                "memory__swap__max",
                "memory__low",
                "cpu__idle",
                "cpu__weight",
                "cpu__max__burst",
            ),
            *(
                "cpuset__cpus",
                "cpuset__mems",
                "pids__max",
                "io__weight",
                "io__max",
                "hugetlb__2MB__max",
            ),
            *("hugetlb__2MB__rsvd__max", "rdma__max"),
            *names,
        ),
        "",
    )
    return files(
        place,
        cpu__max="max 100000",
        memory__current="900",
        cgroup__controllers="cpu memory",
        **empty,
    )


def test_every_limit_reaches_its_file_on_version_1(tmp_path: pathlib.Path) -> None:
    dirs = legacy_dirs(tmp_path)
    network = {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 500}]}
    limits1.apply(
        dirs,
        {
            **FULL,
            "memory": {**FULL["memory"], "swappiness": 0, "disableOOMKiller": True},
            "cpu": {**FULL["cpu"], "realtimePeriod": 1000000, "realtimeRuntime": 950000},
            "blockIO": {**FULL["blockIO"], "leafWeight": 20},
            "network": network,
        },
    )
    assert written(tmp_path / "memory") == {
        "memory.limit_in_bytes": "1000" + "9223372036854771712"[4:],
        "memory.memsw.limit_in_bytes": "3000",
        "memory.soft_limit_in_bytes": "500",
        "memory.swappiness": "0",
        "memory.oom_control": "1",
    }
    assert written(tmp_path / "cpu") == {
        "cpu.shares": "1024",
        "cpu.cfs_quota_us": "20000",
        "cpu.cfs_period_us": "50000",
        "cpu.cfs_burst_us": "100",
        "cpu.idle": "0",
        "cpu.rt_period_us": "1000000",
        "cpu.rt_runtime_us": "950000",
    }
    assert written(tmp_path / "cpuset") == {"cpuset.cpus": "0-1", "cpuset.mems": "0"}
    assert written(tmp_path / "pids") == {"pids.max": "0"}
    assert written(tmp_path / "blkio") == {
        "blkio.weight": "500",
        "blkio.leaf_weight": "20",
        "blkio.weight_device": "8:0 300",
        "blkio.throttle.read_bps_device": "8:0 600",
        "blkio.throttle.write_bps_device": "8:1 700",
        "blkio.throttle.read_iops_device": "8:2 800",
        "blkio.throttle.write_iops_device": "8:3 900",
    }
    assert written(tmp_path / "hugetlb") == {
        "hugetlb.2MB.limit_in_bytes": "4194304",
        "hugetlb.2MB.rsvd.limit_in_bytes": "4194304",
    }
    assert written(tmp_path / "net_cls") == {"net_cls.classid": "1048577"}
    assert written(tmp_path / "net_prio") == {"net_prio.ifpriomap": "eth0 500"}
    assert written(tmp_path / "rdma") == {"rdma.max": "mlx5_1 hca_handle=3 hca_object=10000"}


def test_every_limit_reaches_its_file_on_version_2(tmp_path: pathlib.Path) -> None:
    limits2.apply(unified_dir(tmp_path), FULL)
    found = written(tmp_path)
    assert found == {
        "cgroup.controllers": "cpu memory",
        "memory.current": "900",
        "memory.max": "1000",
        "memory.swap.max": "2000",
        "memory.low": "500",
        "cpu.idle": "0",
        "cpu.weight": "100",
        "cpu.max": "20000 50000",
        "cpu.max.burst": "100",
        "cpuset.cpus": "0-1",
        "cpuset.mems": "0",
        "pids.max": "0",
        "io.weight": "8:0 2930",
        "io.max": "8:3 wiops=900",
        "hugetlb.2MB.max": "4194304",
        "hugetlb.2MB.rsvd.max": "4194304",
        "rdma.max": "mlx5_1 hca_handle=3 hca_object=10000",
    }


def test_zeros_that_clients_fill_in_set_nothing(tmp_path: pathlib.Path) -> None:
    zeros = {
        "memory": {"limit": 0, "swap": 0, "reservation": 0, "disableOOMKiller": False},
        "cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": "", "realtimeRuntime": 0},
        "blockIO": {"weight": 0, "leafWeight": 0, "weightDevice": None},
        "network": {"classID": 0, "priorities": []},
        "hugepageLimits": [],
        "pids": {},
    }
    limits1.apply({}, zeros)
    limits2.apply(None, zeros)


@pytest.mark.parametrize(
    ("limit", "swap", "expected"),
    [
        (-1, 0, "max"),
        (0, 0, None),
        (5, 0, None),
        (5, -1, "max"),
        (-1, 7, "7"),
        (5, 5, "0"),
        (5, 9, "4"),
    ],
)
def test_swap_of_version_2_is_the_sum_without_memory(
    limit: int, swap: int, expected: str | None
) -> None:
    assert limits2.swap_only(limit, swap) == expected


@pytest.mark.parametrize(
    ("limit", "swap", "why"),
    [
        (0, 5, "without memory limit"),
        (5, 4, "should be >= memory limit"),
        (-3, 5, "invalid memory value"),
    ],
)
def test_swap_that_contradicts_memory_is_refused(limit: int, swap: int, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        limits2.swap_only(limit, swap)


@given(st.integers(min_value=2, max_value=262144))
def test_the_weight_follows_the_quadratic_curve(shares: int) -> None:
    log = math.log2(shares)
    exact = 10 ** ((log * log + 125 * log) / 612 - 7 / 34)
    assert abs(limits2.cpu_weight(shares) - math.ceil(exact)) <= (
        1 if abs(exact - round(exact)) < 1e-6 else 0
    )
    assert 1 <= limits2.cpu_weight(shares) <= limits2.cpu_weight(shares + 1) <= 10000


def test_weights_are_the_known_ones_at_known_shares() -> None:
    assert [limits2.cpu_weight(n) for n in (0, 2, 3, 2000, 1024, 262144, 1 << 40)] == [
        1,
        1,
        2,
        170,
        100,
        10000,
        10000,
    ]
    assert [limits2.io_weight(n) for n in (10, 500, 1000)] == [1, 4950, 10000]


def test_a_new_quota_keeps_the_period_and_a_new_period_keeps_the_quota(
    tmp_path: pathlib.Path,
) -> None:
    place = files(tmp_path, cpu__max="30000 60000")
    limits2.apply(place, {"cpu": {"quota": 40000}})
    assert written(tmp_path)["cpu.max"] == "40000 60000"
    limits2.apply(place, {"cpu": {"period": 70000}})
    assert written(tmp_path)["cpu.max"] == "40000 70000"


@pytest.mark.parametrize(
    ("section", "values", "where"),
    [
        ("memory", {"swappiness": 60}, "memory.swappiness"),
        ("memory", {"disableOOMKiller": True}, "memory.disableOOMKiller"),
        ("cpu", {"realtimeRuntime": 1}, "cpu.realtimeRuntime"),
        ("blockIO", {"leafWeight": 10}, "blockIO.leafWeight"),
        ("network", {"classID": 1}, "network.classID"),
        ("network", {"priorities": [{"name": "e", "priority": 1}]}, "network.priorities"),
    ],
)
def test_what_version_2_cannot_do_is_refused_by_name(
    section: str, values: dict[str, Any], where: str
) -> None:
    with pytest.raises(ConfigError, match=where):
        limits2.check_possible({section: values})


def test_a_limit_below_the_usage_is_rejected_before_it_kills(tmp_path: pathlib.Path) -> None:
    place = unified_dir(tmp_path)
    with pytest.raises(Failure, match=r"current usage is 900"):
        limits2.apply(place, {"memory": {"limit": 800, "checkBeforeUpdate": True}})
    assert "memory.max" not in written(tmp_path)
    limits2.apply(place, {"memory": {"limit": 800}})
    assert written(tmp_path)["memory.max"] == "800"


def test_bfq_weights_are_used_where_the_scheduler_is_there(tmp_path: pathlib.Path) -> None:
    place = files(tmp_path, io__bfq__weight="default 100\n")
    limits2.apply(place, {"blockIO": {"weight": 777}})
    assert written(tmp_path)["io.bfq.weight"].startswith("777")
    legacy = files(tmp_path / "v1", blkio__bfq__weight="", blkio__bfq__weight_device="")
    limits1.apply(
        {"blkio": legacy},
        {"blockIO": {"weight": 33, "weightDevice": [{"major": 1, "minor": 2, "weight": 4}]}},
    )
    assert written(tmp_path / "v1") == {
        "blkio.bfq.weight": "33",
        "blkio.bfq.weight_device": "1:2 4",
    }


def test_unified_is_written_verbatim_in_its_order_and_names_cannot_leave_the_directory(
    tmp_path: pathlib.Path,
) -> None:
    place = files(tmp_path / "c", memory__high="", cgroup__controllers="memory")
    limits2.apply(place, {"unified": {"memory.high": "  max "}})
    assert written(tmp_path / "c")["memory.high"] == "  max "
    for name, why in (
        ("../memory.high", "no slashes"),
        ("memory", "CONTROLLER.PARAMETER"),
        (".high", "CONTROLLER.PARAMETER"),
        ("cpu.weight", "controller 'cpu' not available"),
    ):
        with pytest.raises(ConfigError, match=why):
            limits2.apply(place, {"unified": {name: "1"}})
    with pytest.raises(Failure, match=r"memory.unheard_of"):
        limits2.apply(place, {"unified": {"memory.unheard_of": "1"}})


def test_unified_on_version_1_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot use unified resources on cgroup v1"):
        limits1.apply({}, {"unified": {"memory.high": "1"}})


def test_a_limit_without_its_controller_says_which() -> None:
    with pytest.raises(
        Failure, match=r"cannot set pids limit: container could not join or create cgroup"
    ):
        limits1.apply({}, {"pids": {"limit": 5}})
    with pytest.raises(
        Failure, match=r"cannot set memory limit: container could not join or create cgroup"
    ):
        limits2.apply(None, {"memory": {"limit": 5}})


@pytest.mark.parametrize("size", ["2", "MB", "../2MB", "2mb", "-2MB", ""])
def test_a_page_size_that_is_none_never_becomes_a_path(tmp_path: pathlib.Path, size: str) -> None:
    with pytest.raises(ConfigError, match=r"hugepageLimits\[0\].pageSize"):
        limits2.hugepages(str(tmp_path), [{"pageSize": size, "limit": 1}])


def test_huge_pages_the_kernel_does_not_have_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match=r"this kernel has no huge pages of 3MB"):
        limits2.hugepages(str(tmp_path), [{"pageSize": "3MB", "limit": 1}])


def test_swappiness_out_of_range_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match=r"valid range is 0-100"):
        limits1.apply(legacy_dirs(tmp_path), {"memory": {"swappiness": 101}})
    limits1.apply(legacy_dirs(tmp_path), {"memory": {"swappiness": (1 << 64) - 1}})


def test_shares_the_kernel_cut_are_an_error() -> None:
    limits1.check_shares(5, 5)
    with pytest.raises(ConfigError, match=r"the maximum allowed cpu-shares is 1000"):
        limits1.check_shares(2000, 1000)
    with pytest.raises(ConfigError, match=r"the minimum allowed cpu-shares is 2"):
        limits1.check_shares(1, 2)
