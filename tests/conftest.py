"""What all tests share: a scrubbed environment, and where peers and real images are found."""

from __future__ import annotations

import os
import pathlib
import shutil

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says what else the machine does.
settings.register_profile("argosy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("argosy")

_SCRUBBED = (
    "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "DOCKER_AUTH_CONFIG", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME",
    "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
    "http_proxy", "https_proxy", "no_proxy", "all_proxy", "SOURCE_DATE_EPOCH", "EDITOR", "VISUAL", "NO_COLOR",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "PYTHONWARNINGS",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _scrubbed(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in _SCRUBBED:
        monkeypatch.delenv(name, raising=False)
    for name in [n for n in os.environ if n.startswith("ARGOSY_") and n != "ARGOSY_PEERS"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.getbasetemp() / "home"))
    monkeypatch.setenv("LC_ALL", "C.UTF-8")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the runtime share the machine's cgroups and look for what is left there: one worker has them all."""
    for item in items:
        name = item.nodeid
        if name.startswith(("tests/runtime/", "tests/attack/test_runtime")):
            item.add_marker(pytest.mark.xdist_group("runtime"))


@pytest.fixture(scope="session")
def images() -> pathlib.Path:
    """The folder of real images made by others; the test is skipped where it is not there."""
    folder = pathlib.Path(__file__).parents[2] / "shared" / "images"
    if not folder.is_dir():
        pytest.skip("real images: the folder ../shared/images is not there")
    return folder


def find_peer(name: str) -> str:
    """The path of another project's program; the test is skipped, by name, where it is not installed."""
    places = [os.environ.get("ARGOSY_PEERS", ""), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]
    found = shutil.which(name, path=os.pathsep.join(p for p in places if p))
    if found is None:
        pytest.skip(f"peer {name}: not installed")
    return found


@pytest.fixture(scope="session")
def peer():  # type: ignore[no-untyped-def]
    """`peer("skopeo")` is its path, or the test is skipped by name."""
    return find_peer


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests recorded for the log of a run: the official suites' own summaries."""
    lines = [
        f"{report.nodeid.rpartition('::')[2]}: {value}"
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == "summary" and getattr(report, "when", "") == "call"
    ]
    if lines:
        terminalreporter.section("official conformance suites")
        for line in sorted(lines):
            terminalreporter.write_line(line)
