"""The benchmarks can be listed, chosen and judged; measuring is not a test's business."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parents[2] / "bench"
ISSUES = {
    "argosy --version", "argosy --help", "copy memory", "unpack", "unpack uncompressed", "unpack memory", "append",
    "append size", "pull", "pull memory", "push", "digest", "manifest GET", "push 1 MB, 10 clients", "blob upload",
    "blob download", "tag list, first page", "catalog, first page", "start-up of the registry",
    "worker memory, pushes", "run", "create + start + delete", "state", "kill", "delete", "exec", "init memory",
}  # fmt: skip


def run(*words: str, peers: str = "") -> subprocess.CompletedProcess[str]:
    env = {"PATH": peers or os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    command = [sys.executable, str(BENCH / "run.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("run")


def test_a_quick_run_lists_its_studies() -> None:
    done = run("--quick", "--list")
    assert done.returncode == 0, done.stderr
    assert "unpack [s] at most 0.5 x umoci" in done.stdout


def test_a_missing_peer_is_named(tmp_path: Path) -> None:
    done = run("--list", "--only", "unpack", peers=str(tmp_path))
    assert "(umoci: not installed)" in done.stdout


def test_only_chooses_by_study_row_and_room() -> None:
    assert "crane and skopeo" in run("--list", "--only", "pull memory").stdout
    assert "crane and skopeo" not in run("--list", "--only", "runtime").stdout


def test_an_unknown_name_is_refused() -> None:
    done = run("--list", "--only", "nothing")
    assert done.returncode != 0
    assert "--only nothing: no such study or row" in done.stderr


def test_every_speed_target_is_a_row_with_a_target(bench: ModuleType) -> None:
    rows = [row for study in bench.STUDIES for row in study.rows]
    assert len({row.name for row in rows}) == len(rows)
    assert {row.name for row in rows if row.targets} >= ISSUES


def test_verdicts_compare_medians_with_the_best_peer(bench: ModuleType) -> None:
    harness = importlib.import_module("harness")
    time = harness.Row("t", "s", (harness.Target(0.5, ("a", "b")),))
    rate = harness.Row("r", "/s", (harness.Target(2, ("a",)), harness.Target(1, ("absent",))))
    study = harness.Study("x", "", (time, rate), lambda stage: None)
    values = {
        "t": {"argosy": [1.0, 9.0, 2.0], "a": [5.0], "b": [4.0]},
        "r": {"argosy": [19.0], "a": [10.0]},
    }
    result = harness.Result(study, values, [])
    assert result.verdict(time, time.targets[0]) == "met"
    assert [result.verdict(rate, one) for one in rate.targets] == [
        "missed",
        "not measured: no peer",
    ]
    page = importlib.import_module("report").markdown([result], seconds=60, quick=True)
    assert "| t | 2.00 (1.00-9.00) s | at most 0.5 x a and b | met |" in page
    assert "| r | 19.0 (19.0-19.0) /s | at least 2 x a | **missed** |" in page


def test_contenders_take_turns(bench: ModuleType, tmp_path: Path) -> None:
    import contextlib

    harness = importlib.import_module("harness")
    turns: list[str] = []

    def turn(name: str) -> dict[str, float]:
        turns.append(name)
        return {"x": 1.0}

    study = harness.Study(
        "x",
        "",
        (harness.Row("x", "s"),),
        lambda stage: contextlib.nullcontext({"argosy": lambda: turn("a"), "b": lambda: turn("b")}),
        ("no-such-program",),
        quick=3,
    )
    result = harness.measured(study, harness.Stage(tmp_path, quick=True))
    assert turns == ["a", "b"] * 3
    assert result.missing == ["no-such-program"]


def test_a_whole_process_is_measured_by_itself(bench: ModuleType) -> None:
    harness = importlib.import_module("harness")
    held = bytearray(200_000_000)  # not to be counted as the child's
    seconds, memory = harness.process([sys.executable, "-I", "-S", "-c", "pass"])
    assert seconds > 0
    assert memory < 60
    with pytest.raises(harness.ProgramError, match="exit code 3: gone"):
        harness.process(
            [sys.executable, "-c", "import sys; print('gone', file=sys.stderr); sys.exit(3)"]
        )
    assert held
