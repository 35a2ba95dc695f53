"""The client's commands against a real registry: what they print, what is there afterwards, how they exit."""

from __future__ import annotations

import base64
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from argosy.layout.store import LayoutStore
from argosy.remote.registry import Registry
from argosy.testing import random
from tests.cli.conftest import Run, argosy, layout
from tests.interop.registries import Running, running
from tests.interop.test_client import htpasswd

__all__ = ["argosy", "layout"]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running("registry", tmp_path_factory.mktemp("commands")) as found:
        yield found


@pytest.fixture
def filled(real: Running) -> Iterator[str]:
    """A repository with tags `1.0.0`, `1.1.0`, `2.0.0`, `latest`, and an artifact that refers to `1.0.0`."""
    with Registry(real.name) as registry:
        repository = registry.repository("src/app")
        first = random.image(repository, 1, "1.0.0")
        random.image(repository, 2, "1.1.0")
        random.image(repository, 3, "2.0.0", "latest")
        random.artifact(repository, 4, subject=first)
        yield f"{real.name}/src/app"


def test_cp_digest_ls_and_back(argosy: Run, filled: str, tmp_path: pathlib.Path) -> None:
    argosy("cp", f"{filled}:1.0.0", f"oci:{tmp_path}/layout")
    there = argosy("digest", f"{filled}:1.0.0").out
    assert argosy("digest", f"oci:{tmp_path}/layout:1.0.0").out == there
    assert argosy("ls", filled, "--include", r"\d.*").out.split() == ["1.0.0", "1.1.0", "2.0.0"]
    argosy("cp", f"oci:{tmp_path}/layout:1.0.0", f"{filled}-copy:v1")
    assert argosy("digest", f"{filled}-copy:v1").out == there


def test_nothing_there_is_2_and_a_wrong_option_64(argosy: Run, filled: str, real: Running) -> None:
    assert "nowhere" in argosy("digest", f"{filled}:nowhere", code=2).err
    argosy("digest", f"{filled}:1.0.0", "--creds", "nocolon", code=64)
    argosy("digest", f"{filled}:1.0.0", "--resolve", "x", code=64)
    argosy("digest", f"{filled}:1.0.0", "--resolve", "r.example:70000:127.0.0.1", code=64)
    argosy("registry", "ping", f"{real.name}1", code=64)  # no port has so many digits
    argosy("registry", "ping", "localhost:1", "--retry", "0", code=1)


def test_verbose_shows_the_protocol_on_stderr(argosy: Run, filled: str) -> None:
    done = argosy("digest", "-v", f"{filled}:1.0.0")
    assert "--> HEAD http://" in done.err
    assert "<-- 200" in done.err
    assert done.out.startswith("sha256:")
    assert done.out.count("\n") == 1


def test_help_tells_of_the_options_for_registries(argosy: Run) -> None:
    assert "--plain-http" not in argosy("cp", "--help").out
    shown = argosy("cp", "--help-registry").out
    for option in (
        "--authfile",
        "--creds",
        "--tls-verify",
        "--resolve",
        "--max-wait",
        "--chunk-size",
    ):
        assert option in shown


def test_a_tag_is_removed_without_its_siblings(argosy: Run, filled: str) -> None:
    argosy("tag", f"{filled}:1.1.0", "one", "two")
    argosy("rm", f"{filled}:one")
    tags = argosy("ls", filled).out.split()
    assert "one" not in tags
    assert {"two", "1.1.0"} <= set(tags)
    argosy("rm", f"{filled}:two")


def test_blobs_are_put_looked_at_got_and_removed(
    argosy: Run, real: Running, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "blob"
    file.write_bytes(b"some bytes")
    place = f"{real.name}/blobs/x"
    digest = argosy("blob", "put", place, file).out.strip()
    assert argosy("blob", "head", f"{place}@{digest}").json["size"] == 10
    assert argosy("blob", "get", f"{place}@{digest}").out == "some bytes"
    argosy("blob", "rm", f"{place}@{digest}")
    argosy("blob", "get", f"{place}@{digest}", code=2)
    argosy("blob", "get", place, code=64)


def test_catalog_and_ping(argosy: Run, filled: str, real: Running) -> None:
    assert "src/app" in argosy("catalog", real.name).out.split()
    assert argosy("catalog", real.name, "--full", "--include", "src/app").out == f"{filled}\n"
    assert argosy("registry", "ping", real.name, "--json").json["url"] == f"http://{real.name}"


def test_artifacts_travel_and_are_discovered(
    argosy: Run, filled: str, real: Running, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sbom.json").write_text("{}")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# a")
    digest = argosy(
        "attach",
        f"{filled}:1.1.0",
        "--artifact-type",
        "application/spdx+json",
        "-a",
        "k=v",
        "sbom.json:application/json",
    ).out.strip()
    found = argosy("discover", "--json", f"{filled}:1.1.0").json["referrers"]
    assert [r["digest"] for r in found] == [digest]
    assert found[0]["annotations"]["k"] == "v"
    assert f"application/spdx+json {digest}" in argosy("discover", f"{filled}:1.1.0").out
    argosy("artifact", "push", f"{real.name}/art:v1", "docs", "sbom.json")
    argosy("artifact", "pull", f"{real.name}/art:v1", "-o", tmp_path / "out")
    assert (tmp_path / "out" / "docs" / "a.md").read_text() == "# a"
    argosy("rm", f"{filled}@{digest}")
    assert argosy("discover", "--json", f"{filled}:1.1.0").json["referrers"] == []


# ------------------------------------------------------------------------------------------------------------ sync


def test_sync_copies_what_differs_and_prunes(argosy: Run, filled: str) -> None:
    target = f"{filled}-mirror"
    dry = argosy("sync", filled, target, "--semver", "^1.0", "--dry-run").out
    assert [line.split()[0] for line in dry.splitlines()] == ["copy", "copy"]
    argosy("ls", target, code=2)
    argosy("sync", filled, target, "--semver", "^1.0")
    assert argosy("ls", target).out.split() == ["1.0.0", "1.1.0"]
    assert argosy("sync", filled, target, "--semver", "^1.0").out == ""
    argosy("tag", f"{target}:1.0.0", "1.9.9", "other")
    pruned = argosy("sync", filled, target, "--semver", "^1.0", "--prune").out
    assert pruned.split()[:1] + pruned.split()[2:3] == ["prune", "1.9.9"]
    assert argosy("ls", target).out.split() == ["1.0.0", "1.1.0", "other"]


def test_sync_takes_a_file_and_keeps_going(
    argosy: Run, filled: str, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "sync.yaml"
    file.write_text(
        f"- source: {filled}-nowhere\n  target: oci:{tmp_path}/none\n"
        f"- source: {filled}\n  target: oci:{tmp_path}/mirror\n  include: ['1.*']\n  newest: 1\n  referrers: true\n"
    )
    done = argosy("sync", "-f", file, "--keep-going", code=1)
    assert "1 of the steps failed" in done.err
    assert list(LayoutStore.open(f"{tmp_path}/mirror").tags()) == ["1.1.0"]
    argosy("sync", "-f", file, code=2)


def test_sync_understands_skopeos_file(
    argosy: Run, filled: str, real: Running, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "skopeo.yaml"
    file.write_text(
        f"'{real.name}':\n  tls-verify: false\n  images:\n    src/app: ['1.0.0']\n  images-by-semver:\n    src/app: '>= 2'\n"
        "  images-by-tag-regex:\n    src/app: ^lat\n"
    )
    argosy("sync", "-f", file, "--target", f"{real.name}/below")
    assert argosy("ls", f"{real.name}/below/app").out.split() == ["1.0.0", "2.0.0", "latest"]


@pytest.mark.parametrize(
    "text",
    [
        "5",
        "- 5",
        "- source: a\n  wrong: b",
        "- source: [",
        "x: {images-by-what: {}}",
        "- source: localhost:1/a\n  target: localhost:1/b\n  include: '('",
    ],
)
def test_a_sync_file_that_is_none_is_one_clear_line(
    argosy: Run, tmp_path: pathlib.Path, text: str
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    done = argosy("sync", "-f", file, "--retry", "0", code=1)
    assert done.err.count("\n") <= 2


def test_names_of_an_archive_become_tags_of_a_registry_and_names_again(
    argosy: Run, layout: pathlib.Path, real: Running, tmp_path: pathlib.Path
) -> None:
    saved, target = f"docker-archive:{tmp_path}/saved.tar", f"{real.name}/saved/app"
    for name in ("app:v1", "app:v2"):
        argosy("cp", "-q", f"oci:{layout}:v1", f"{saved}:{name}")
    argosy("sync", "-q", "--prune", saved, target)
    assert argosy("ls", target).out.split() == ["v1", "v2"]
    assert argosy("sync", "-q", "--prune", saved, target).out == ""
    back = f"docker-archive:{tmp_path}/back.tar"
    argosy("cp", "-q", f"oci:{layout}:v1", f"{back}:another:v1")
    argosy("tag", f"{target}:v1", "v3")
    for last in ("v3", "v2"):
        argosy("sync", "-q", "--prune", target, back)
        named = [f"{target}:{tag}" for tag in ("v1", "v2", "v3") if tag <= last]
        assert sorted(argosy("ls", back).out.split()) == sorted(["another:v1", *named])
        assert argosy("sync", "-q", "--prune", target, back).out == ""
        if last == "v3":
            argosy("rm", f"{target}:v3")
    argosy("cp", "-q", f"oci:{layout}:v1", f"{saved}:other:v1")
    done = argosy("sync", "-q", saved, f"{target}-two", code=64)
    assert "would both be v1" in done.err


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A registry without the referrers API: clients keep the lists under tags."""
    with running("docker-registry", tmp_path_factory.mktemp("old")) as found:
        yield found


@pytest.fixture
def note(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a file to attach, in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "note").write_text("x")
    return "note:text/plain"


def refers(argosy: Run, place: str) -> int:
    return len(argosy("discover", "--json", place).json["referrers"])


def test_prune_leaves_the_lists_of_referrers(
    argosy: Run, layout: pathlib.Path, old: Running, note: str
) -> None:
    target = f"{old.name}/mirror/prune"
    argosy("sync", "-q", "-r", f"oci:{layout}", target)
    argosy("attach", "-q", f"{target}:multi", "--artifact-type", "a/own", note)
    for options in (["-r"], ["-r", "--digest-tags"], ["--digest-tags"], []):
        argosy("sync", "-q", "--prune", *options, f"oci:{layout}", target)
        assert (refers(argosy, f"{target}:v1"), refers(argosy, f"{target}:multi")) == (1, 1)


def test_a_list_of_referrers_that_was_lost_is_made_again(
    argosy: Run, layout: pathlib.Path, old: Running
) -> None:
    target = f"{old.name}/mirror/lost"
    argosy("sync", "-q", "-r", f"oci:{layout}", target)
    (tag,) = [tag for tag in argosy("ls", target).out.split() if tag.startswith("sha256-")]
    argosy("rm", f"{target}:{tag}")
    assert refers(argosy, f"{target}:v1") == 0
    argosy("sync", "-q", "-r", f"oci:{layout}", target)
    assert refers(argosy, f"{target}:v1") == 1


@pytest.mark.parametrize("command", ["cp", "cp -a", "sync"])
def test_digest_tags_do_not_write_over_the_targets_own_list(
    argosy: Run, layout: pathlib.Path, old: Running, note: str, command: str
) -> None:
    name = f"{old.name}/digest-tags/{command.replace(' -', '-')}"
    for place in (f"{name}/source", f"{name}/target"):
        argosy("cp", "-q", f"oci:{layout}:v1", f"{place}:v1")
        kind = f"a/{place.rpartition('/')[2]}"
        argosy("attach", "-q", f"{place}:v1", "--artifact-type", kind, note)
    tag = ":v1" if command == "cp" else ""
    argosy(*command.split(), "-q", "--digest-tags", f"{name}/source{tag}", f"{name}/target")
    assert refers(argosy, f"{name}/target:v1") == 1
    argosy(*command.split(), "-q", "-r", "--digest-tags", f"{name}/source{tag}", f"{name}/target")
    assert refers(argosy, f"{name}/target:v1") == 2


@pytest.mark.parametrize("kept", ["mirror", "mirror.tar"])
def test_backup_and_restore_with_referrers(
    argosy: Run, filled: str, tmp_path: pathlib.Path, kept: str
) -> None:
    argosy("backup", f"{filled}:1.0.0,latest", "-o", tmp_path / kept)
    back = f"{filled}-back-{kept.replace('.', '-')}"
    argosy("restore", "-i", tmp_path / kept, back)
    assert argosy("ls", back, "--no-digest-tags").out.split() == ["1.0.0", "latest"]
    assert len(argosy("discover", "--json", f"{back}:1.0.0").json["referrers"]) == 1


def test_pull_writes_what_is_asked_for(argosy: Run, filled: str, tmp_path: pathlib.Path) -> None:
    argosy("pull", "-o", tmp_path / "a.tar", f"{filled}:1.0.0")
    assert argosy("ls", f"docker-archive:{tmp_path}/a.tar").out.strip().endswith("src/app:1.0.0")
    argosy("pull", "-o", tmp_path / "layout", f"{filled}:1.0.0")
    done = argosy("push", f"oci:{tmp_path}/layout:1.0.0", f"{filled}-pushed:x")
    assert done.out.strip() == f"{filled}-pushed@{argosy('digest', f'{filled}:1.0.0').out.strip()}"


# ------------------------------------------------------------------------------------------------------ credentials


def test_login_tries_keeps_and_forgets(
    argosy: Run, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    kept = tmp_path / "run" / "containers" / "auth.json"
    with running("registry", tmp_path, extra=htpasswd(tmp_path)) as real:
        argosy("login", real.name, "-u", "ada", "-p", "wrong", code=3)
        assert not kept.exists()
        script = [
            sys.executable,
            "-m",
            "argosy",
            "login",
            real.name,
            "-u",
            "ada",
            "--password-stdin",
        ]
        subprocess.run(script, input=b"secret\n", check=True, capture_output=True)
        assert (
            json.loads(kept.read_text())["auths"][real.name]["auth"]
            == base64.b64encode(b"ada:secret").decode()
        )
        argosy("registry", "ping", real.name)
        assert argosy("login", "--get-login", real.name).out == "ada\n"
        explained = argosy("auth", "ls", "--explain", real.name)
        assert f"{kept} found: ada, under {real.name}" in explained.out
        assert "secret" not in explained.out
        assert argosy("auth", "ls", "--json").json[0]["username"] == "ada"
        argosy("registry", "ping", real.name, "--no-creds", code=3)
        argosy("registry", "ping", real.name, "--no-creds", "--creds", "a:b", code=64)
        assert argosy("auth", "token", f"{real.name}/x", "-H").out.startswith(
            "Authorization: Basic"
        )
        argosy("logout", real.name)
        argosy("logout", real.name, code=2)
        argosy("registry", "ping", real.name, code=3)
