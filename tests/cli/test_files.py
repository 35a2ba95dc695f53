"""Files that commands write are whole or as they were before."""

from __future__ import annotations

import ctypes
import json
import os
import pathlib
import re
import signal
import stat
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from argosy.spec.digest import Digest
from tests.cli.conftest import Run

DENIED = "/sys/argosy-may-not-write-here"


def a_layer(argosy: Run, layout: pathlib.Path) -> str:
    manifest = json.loads(argosy("manifest", "get", f"oci:{layout}:v1").out)
    return str(manifest["layers"][0]["digest"])


def needs_sysfs() -> None:
    try:
        os.close(os.open(DENIED, os.O_WRONLY | os.O_CREAT))
    except PermissionError:
        return
    except OSError:
        pass
    pytest.skip("a directory that nobody may write to: /sys is none here")


def test_a_blob_replaces_a_file_with_the_mode_of_a_new_one(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    digest, file = a_layer(argosy, layout), tmp_path / "blob"
    file.write_text("old")
    old = os.umask(0o027)
    try:
        argosy("blob", "get", f"oci:{layout}@{digest}", "-o", file)
    finally:
        os.umask(old)
    assert Digest.of(file.read_bytes()) == digest
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_damaged_blob_leaves_the_file_as_it_was(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / "out"
    (tmp_path / "large").write_bytes(os.urandom(5_000_000))
    digest = argosy("blob", "put", f"oci:{layout}", tmp_path / "large").out.strip()
    stored = layout / "blobs" / digest.replace(":", "/")
    data = stored.read_bytes()
    stored.chmod(0o644)
    stored.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    folder.mkdir()
    argosy("blob", "get", f"oci:{layout}@{digest}", "-o", folder / "new", code=4)
    assert list(folder.iterdir()) == []
    (folder / "blob").write_text("old")
    argosy("blob", "get", f"oci:{layout}@{digest}", "-o", folder / "blob", code=4)
    assert [file.read_bytes() for file in folder.iterdir()] == [b"old"]


class _Slow(BaseHTTPRequestHandler):
    """A registry that begins to send a blob, and then waits for `ended`."""

    ended = threading.Event()

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "9000000")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        if "/blobs/" in self.path:
            self.wfile.write(bytes(8_000_000))
            self.wfile.flush()
            self.ended.wait(30)


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (signal.SIGINT, b"argosy: interrupted\n"),
        (signal.SIGTERM, b"argosy: terminated\n"),
        (signal.SIGHUP, b"argosy: hung up\n"),
    ],
)
def test_a_command_that_is_ended_leaves_the_file_as_it_was(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, told: bytes
) -> None:
    monkeypatch.setattr(_Slow, "ended", threading.Event())
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "blob").write_text("old")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    place = f"127.0.0.1:{server.server_address[1]}/app@{Digest.of(b'never')}"
    words = ["blob", "get", "--plain-http", place, "-o", str(folder / "blob")]
    process = subprocess.Popen(
        [sys.executable, "-m", "argosy", *words],
        stderr=subprocess.PIPE,
        # in the background of a shell SIGINT would be ignored, below nohup SIGHUP
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    try:
        for _ in range(300):
            if any(file.stat().st_size > 3 for file in folder.iterdir()):
                break
            _Slow.ended.wait(0.1)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    finally:
        _Slow.ended.set()
        process.kill()
        process.communicate()
        server.shutdown()
        server.server_close()
    assert (process.returncode, err) == (128 + number, told)
    assert [file.read_bytes() for file in folder.iterdir()] == [b"old"]


def test_what_is_no_file_is_not_replaced_and_links_stay(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to("file")
    words = ("export", f"oci:{layout}:v1")
    argosy(*words, link)
    assert link.is_symlink()
    data = (tmp_path / "file").read_bytes()
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    argosy(*words, pipe)
    reader.join(10)
    assert got == [data]
    assert argosy(*words, "/dev/stdout").out.encode(errors="surrogateescape")[:512] == data[:512]
    assert pipe.is_fifo()


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_an_archive_is_read_from_a_fifo(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, kind: str
) -> None:
    file, pipe = tmp_path / "file", tmp_path / "pipe"
    argosy("cp", "-q", f"oci:{layout}:v1", f"{kind}:{file}:a:v1")
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(file.read_bytes()), daemon=True)
    writer.start()
    argosy("cp", "-q", f"{kind}:{pipe}:a:v1", f"oci:{tmp_path}/to:v1")
    writer.join()
    assert argosy("validate", f"oci:{tmp_path}/to:v1").out == ""


def test_files_are_not_copied_to_a_file_called_stdout(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "export --path" in argosy("fs", "cp", f"oci:{layout}:v1", "/", "-", code=64).err
    assert not os.path.lexists("-")


def test_a_file_that_may_not_be_written_is_3(argosy: Run, layout: pathlib.Path) -> None:
    needs_sysfs()
    digest = a_layer(argosy, layout)
    done = argosy("blob", "get", f"oci:{layout}@{digest}", "-o", DENIED, code=3)
    assert done.err == f"argosy: {DENIED}: permission denied\n"
    argosy("export", f"oci:{layout}:v1", DENIED, code=3)


def test_one_digest_file_is_not_for_all_tags(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    words = ("cp", "-q", "-a", f"oci:{layout}", f"oci:{tmp_path}/there")
    file = tmp_path / "digest"
    assert "--digest-file" in argosy(*words, "--digest-file", file, code=64).err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layout"]


def test_a_digest_file_that_may_not_be_written_is_3(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    needs_sysfs()
    place, more = f"oci:{layout}:v1", ("--digest-file", DENIED)
    for words in (
        ("cp", "-q", place, f"oci:{tmp_path}/there:v1"),
        ("mutate", "-q", place, "--label", "a=b", "-t", "new"),
    ):
        done = argosy(*words, *more, code=3)
        assert done.err == f"argosy: {DENIED}: permission denied\n"


def test_files_of_an_artifact_for_a_directory_that_may_not_be_written_are_3(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_sysfs()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("content")
    place = f"oci:{layout}:files"
    argosy("artifact", "push", "-q", place, "file", "--artifact-type", "a/b")
    assert DENIED in argosy("artifact", "pull", place, "-o", DENIED, code=3).err


def test_files_of_an_artifact_for_a_directory_that_is_read_only_are_3(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("content")
    (tmp_path / "out").mkdir(mode=0o555)
    place = f"oci:{layout}:files"
    argosy("artifact", "push", "-q", place, "file", "--artifact-type", "a/b")
    done = argosy("artifact", "pull", place, "-o", tmp_path / "out", code=3)
    assert done.err == f"argosy: {tmp_path}/out: permission denied\n"


READERS = (
    "append -f {} -t oci:{new}:n",
    "artifact push oci:{new}:n {}",
    "artifact push oci:{new}:n --config {}",
    "attach oci:{layout}:v1 --artifact-type a/b {}",
    "blob put oci:{new} {}",
    "cp ./{} oci:{new}:n",
    "cp docker-archive:{} oci:{new}:n",
    "cp oci-archive:{} oci:{new}:n",
    "digest ./{}",
    "insert oci:{layout}:v1 {} /x",
    "manifest put oci:{new}:n {}",
    "mutate oci:{layout}:v1 --append {}",
    "push ./{} localhost:9/app:v1",
    "repack oci:{new}:n {}",
    "restore -i ./{} oci:{new}",
    "size --ci-config {} oci:{layout}:v1",
    "source add oci:{layout}:source {}",
    "source build -e {} -t oci:{new}:n",
    "spec -o - -f {}",
    "spec -o - --seccomp {}",
    "spec -o - --device {}",
    "sync -f {}",
)


@pytest.mark.parametrize("line", READERS)
def test_a_file_that_is_to_be_read_and_is_not_there_is_2(
    argosy: Run,
    layout: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "extra").mkdir()
    argosy("source", "build", "-q", "-e", "extra", "-t", f"oci:{layout}:source")
    for name in ("missing", "missing/below", "file/below"):
        words = line.format(name, layout=layout, new=tmp_path / "new").split()
        done = argosy(*words, code=2)
        assert re.match(rf"argosy: (\./)?{name}\S*: (no such|not a dir)", done.err), done.err
        assert done.out == ""
        assert not (tmp_path / "new").exists()


def _without_overriding() -> None:
    """Drop, of this process's rights, those to read every file."""
    for right in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, right, 0, 0, 0)  # PR_CAPBSET_DROP, for root


@pytest.mark.parametrize(
    "line",
    [
        "append -f {} -t oci:new:n",
        "artifact push oci:new:n {}",
        "blob put oci:new {}",
        "cp ./{} oci:new:n",
        "cp oci-archive:{} oci:new:n",
        "digest ./{}",
        "insert oci:layout:v1 {} /x",
        "spec -o - -f {}",
        "sync -f {}",
    ],
)
def test_a_file_that_may_not_be_read_is_3(
    layout: pathlib.Path, tmp_path: pathlib.Path, line: str
) -> None:
    (tmp_path / "secret").touch(mode=0)
    done = subprocess.run(
        [sys.executable, "-m", "argosy", *line.format("secret").split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=_without_overriding,
        check=False,
    )
    assert re.fullmatch(r"argosy: (\./)?secret: permission denied\n", done.stderr), done.stderr
    assert (done.returncode, done.stdout) == (3, "")
    assert not (tmp_path / "new").exists()


def test_what_can_be_read_once_is_not_taken_for_several_layers(
    layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """The second one would be empty."""
    made = f"oci:{layout}:made"
    for line in (
        f"mutate oci:{layout}:multi --append <(cat f.tar) -t made",
        f"mutate oci:{layout}:multi --append - -t made < f.tar",
        f"mutate oci:{layout}:v1 --append - --append - -t made < f.tar",
        f"append -f - -f - -t {made} < f.tar",
    ):
        script = f"tar -cf f.tar layout/oci-layout; {sys.executable} -m argosy {line}"
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 64, done.stderr
        assert "it can be read only once" in done.stderr
    script = f"""
        argosy() {{ {sys.executable} -m argosy "$@"; }}
        argosy mutate oci:{layout}:v1 --append - -t made < f.tar
        argosy append -f <(cat f.tar) -f f.tar -f f.tar -t {made}
    """
    subprocess.run(["bash", "-ec", script], cwd=tmp_path, capture_output=True, check=True)


def test_a_fifo_is_no_source_package(argosy: Run, tmp_path: pathlib.Path) -> None:
    """To open one is to wait for whoever writes into it, which nobody does."""
    fifo = tmp_path / "srpms" / "a.src.rpm"
    fifo.parent.mkdir()
    os.mkfifo(fifo)
    done = argosy("source", "build", "-s", fifo.parent, "-t", f"oci:{tmp_path / 'made'}:v1", code=1)
    assert done.err == f"argosy: {fifo}: expected a regular file\n"
