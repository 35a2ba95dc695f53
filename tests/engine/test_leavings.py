"""Many at once, and what killed ones and full disks leave: nothing that `prune` does not take."""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from argosy.engine import etc
from argosy.engine.container import Container
from argosy.engine.layers import LayerTrees
from argosy.engine.network import Bridge
from argosy.engine.options import RunOptions
from argosy.engine.places import Places
from argosy.errors import StorageError
from argosy.layout.store import LayoutStore
from argosy.spec.digest import Digest
from tests.engine.conftest import Argosy, alone, cgroups

pytestmark = pytest.mark.xdist_group("containers")


def test_ten_at_once_all_run(
    argosy: Argosy, image: str, left_behind: Callable[[], list[str]]
) -> None:
    alone(argosy, image, "true")
    with ThreadPoolExecutor(10) as pool:
        done = list(
            pool.map(
                lambda n: argosy("run", "-q", "--rm", image, "sh", "-c", f"echo {n}"), range(10)
            )
        )
    assert [d.out.strip() for d in done] == [str(n) for n in range(10)]
    assert left_behind() == []


def test_one_of_several_is_killed_and_prune_clears_it_away(
    argosy: Argosy, image: str, left_behind: Callable[[], list[str]]
) -> None:
    alone(argosy, image, "true")
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "argosy", "run", "-q", "--rm", image, "sh", "-c", "echo up; exec sleep 60"],
            env=argosy.env, stdout=subprocess.PIPE, text=True,  # type: ignore[attr-defined]
        )
        for _ in range(3)
    ]  # fmt: skip
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
    running[0].kill()
    running[0].wait()
    rows = json.loads(argosy("ps", "-a", "--json").out)
    assert sorted(row["Status"] for row in rows) == ["orphaned", "running", "running"]
    dead = next(row["Id"] for row in rows if row["Status"] == "orphaned")
    argosy("rm", dead, code=1)
    assert "runs on, and nobody watches it\n" in argosy("exec", dead, "true", code=125).err
    assert argosy("prune").out.split() == [dead]
    assert len(json.loads(argosy("ps", "--json").out)) == 2
    for process in running[1:]:
        process.send_signal(signal.SIGTERM)
    for process in running[1:]:
        process.kill()
        process.wait()
    for process in running:
        assert process.stdout is not None
        process.stdout.close()
    argosy("prune")
    assert left_behind() == []


PRUNED = """
import sys
from argosy.engine.options import RunOptions
from argosy.engine.places import Places
from argosy.engine.run import Engine
from argosy.locate import Location

root, runtime, place = sys.argv[1:]
engine = Engine(Places(data=root, run=root + "/run", runtime=(runtime,)))
name, image = engine.images.get(Location.parse(place))

def prune(layer):
    engine.images.store.untag(name)
    print(Engine(engine.places).prune()[1], flush=True)

options = RunOptions(command=("cat", "/etc/motd", "/etc/more"), network="none", remove=True)
sys.exit(engine.run(name, image, options, on_layer=prune))
"""


def test_prune_leaves_what_a_container_is_about_to_need(
    argosy: Argosy, image: str, root: pathlib.Path, launcher: str, tmp_path: pathlib.Path
) -> None:
    alone(argosy, image, "true")
    (tmp_path / "more").write_text("more")
    argosy("insert", image, tmp_path / "more", "/etc/more", "-t", f"oci:{tmp_path}/changed:v1")
    argosy("rmi", json.loads(argosy("images", "--json").out)[0]["Name"])
    done = subprocess.run(
        [sys.executable, "-c", PRUNED, root, launcher, f"oci:{tmp_path}/changed:v1"],
        env=argosy.env, capture_output=True, text=True, check=False,  # type: ignore[attr-defined]
    )  # fmt: skip
    assert (done.returncode, done.stdout.splitlines()) == (0, ["[]", "ahoy", "more"]), done.stderr


def test_an_artifact_among_the_images_is_no_hindrance_to_prune(
    argosy: Argosy, root: pathlib.Path, host_layout: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(host_layout)
    argosy("images")
    argosy("artifact", "push", f"oci:{root}/images:localhost/artifact:v1", "index.json")
    argosy("prune")


def test_a_disk_that_takes_nothing_leaves_no_container(
    argosy: Argosy, image: str, left_behind: Callable[[], list[str]], root: pathlib.Path
) -> None:
    alone(argosy, image, "true")
    line = f"ulimit -f 0; exec {sys.executable} -m argosy run -q --network none {image} true"
    done = subprocess.run(
        ["sh", "-c", line], env=argosy.env, capture_output=True, text=True, check=False  # type: ignore[attr-defined]
    )  # fmt: skip
    assert done.returncode == 125
    assert "container.json: file too large" in done.stderr
    assert left_behind() == []


def test_a_full_disk_is_no_hindrance_to_exec_which_may_make_room(
    argosy: Argosy, image: str, root: pathlib.Path
) -> None:
    script = f"""
        export ARGOSY_ROOT={root}/full; mkdir $ARGOSY_ROOT; mount -t tmpfs -o size=64m none $ARGOSY_ROOT
        argosy() {{ {sys.executable} -m argosy "$@"; }}
        argosy run -q -d --name c --network none {image} sleep 100
        cat /dev/zero > $ARGOSY_ROOT/fill
        argosy exec c cat /etc/motd; argosy rm -f c
        umount -l $ARGOSY_ROOT; rmdir $ARGOSY_ROOT
    """
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], env=argosy.env, capture_output=True, text=True, check=False  # type: ignore[attr-defined]
    )  # fmt: skip
    assert done.stdout.split()[1:] == ["ahoy", "c"], done.stderr


@pytest.mark.parametrize("options", [["--rm"], ["--name=c"], ["--name=c", "-d"]])
def test_a_program_that_fills_the_disk_at_once_has_its_own_end(
    argosy: Argosy, image: str, root: pathlib.Path, launcher: str, options: list[str]
) -> None:
    """The runtime here fills it between the program's start and its own end."""
    runtime = root / "runtime"
    runtime.write_text(
        f'#!/bin/sh\n{launcher} "$@" || exit\n'
        f'case " $* " in *" start "*) cat /dev/zero > {root}/full/fill 2> {root}/why; esac; true\n'
    )
    runtime.chmod(0o755)
    script = f"""
        export ARGOSY_ROOT={root}/full ARGOSY_RUNTIME={runtime}
        mkdir $ARGOSY_ROOT; mount -t tmpfs -o size=64m none $ARGOSY_ROOT
        argosy() {{ {sys.executable} -m argosy "$@"; }}
        argosy run -q --network none {" ".join(options)} {image} sh -c 'exit 7'; echo $?
        argosy wait c
        argosy ps -a --json; argosy rm -f c
        umount -l $ARGOSY_ROOT; rmdir $ARGOSY_ROOT
    """
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], env=argosy.env, capture_output=True, text=True, check=False  # type: ignore[attr-defined]
    )  # fmt: skip
    assert (root / "why").read_text().count("No space left on device") == 1
    code, kept = ("0", True) if "-d" in options else ("7", "--rm" not in options)
    assert code in done.stdout.split()[:2], done
    assert done.stdout.count('"ExitCode": 7') == kept, done


def test_a_file_of_a_container_that_cannot_be_written_is_named(tmp_path: pathlib.Path) -> None:
    places = Places(data=str(tmp_path), run=str(tmp_path), runtime=())
    places.make()
    container = Container.make(places, RunOptions(), image="i", digest="d", detached=False)
    os.symlink("/dev/full", container.file("hosts"))
    with pytest.raises(StorageError, match="/hosts: no space left on device"):
        etc.write(container, RunOptions())
    container.discard()


def test_prune_removes_what_was_never_recorded(argosy: Argosy, root: pathlib.Path) -> None:
    argosy("ps")
    (root / "containers" / ("a" * 64) / "upper").mkdir(parents=True)
    assert argosy("prune").out.split() == ["a" * 64]
    assert os.listdir(root / "containers") == []


def test_a_container_of_which_the_runtime_lost_its_state_is_killed_and_removed(
    argosy: Argosy, image: str, root: pathlib.Path, left_behind: Callable[[], list[str]]
) -> None:
    started = argosy("run", "-q", "-d", "--name", "c", "--network", "none", image, "sleep", "1000")
    shutil.rmtree(root / "run" / "runtime" / started.out.strip())
    argosy("rm", "-f", "c")
    assert left_behind() == []


@pytest.mark.parametrize("how", [("rm", "-f", "c"), ("rm", "c"), ("prune",)])
def test_what_a_removal_left_that_was_killed_is_removed(
    argosy: Argosy, image: str, root: pathlib.Path, how: tuple[str, ...]
) -> None:
    argosy("run", "-q", "--name", "c", "--network", "none", image, "true")
    (place,) = (root / "containers").iterdir()
    (place / "lock").unlink()
    argosy(*how)
    assert os.listdir(root / "containers") == []


def test_no_lock_of_a_layer_stays(argosy: Argosy, image: str, root: pathlib.Path) -> None:
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda _: alone(argosy, image, "true"), range(5)))
    names = os.listdir(root / "layers")
    assert (len(names), [name for name in names if name.endswith(".lock")]) == (2, ["needs.lock"])
    (root / "layers" / "sha256-1.lock").touch()
    (root / "layers" / "sha256-2.lock").touch()
    with (root / "layers" / "sha256-2.lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "and 0 unpacked layers" in argosy("prune").err
    assert sorted(os.listdir(root / "layers")) == sorted([*names, "sha256-2.lock"])


def test_a_container_keeps_its_layers_however_the_place_is_spelled(
    argosy: Argosy, image: str, root: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "link").symlink_to(root)
    argosy.env["ARGOSY_ROOT"] = str(tmp_path / "link")  # type: ignore[attr-defined]
    argosy("run", "-q", "-d", "--name", "c", "--network", "none", image, "sleep", "100")
    argosy.env["ARGOSY_ROOT"] = str(root)  # type: ignore[attr-defined]
    images = LayoutStore.open(str(root / "images"))
    for tag in list(images.tags()):
        images.untag(tag)
    assert "and 0 unpacked layers" in argosy("prune").err
    assert argosy("exec", "c", "sh", "-c", "echo here").out == "here\n"


def _locks() -> list[str]:
    return pathlib.Path("/proc/locks").read_text().splitlines()


def test_a_lock_that_was_removed_meanwhile_is_no_lock(tmp_path: pathlib.Path) -> None:
    """Whoever waits for one gets it when its holder, who removes it, is done: somebody may have made another one."""
    trees, chain_id = LayerTrees(str(tmp_path)), Digest.of(b"")
    place = pathlib.Path(f"{trees.place_of(chain_id)}.lock")
    done: list[bool] = []

    def second() -> None:
        with trees._locked(chain_id):
            done.append(place.exists())

    waiting = threading.Thread(target=second)
    with trees._locked(chain_id):
        inode = f":{place.stat().st_ino} "
        waiting.start()
        while not [x for x in _locks() if inode in x and "->" in x]:
            pass
        assert trees.collect(set()) == []
        assert place.exists()
        assert done == []
    waiting.join()
    assert done == [True]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("how", [("rm", "-f"), ("prune",)])
def test_of_a_damaged_container_all_that_is_there_is_removed(
    argosy: Argosy, image: str, root: pathlib.Path, how: tuple[str, ...],
    left_behind: Callable[[], list[str]],
) -> None:  # fmt: skip
    container = argosy("run", "-q", "-d", "--name", "c", image, "sleep", "100").out.strip()
    place = root / "containers" / container
    watcher = json.loads((place / "container.json").read_text())["watcher"]
    (place / "container.json").write_text('{"id": ')
    (row,) = json.loads(argosy("ps", "--json").out)
    assert (row["Id"], row["Status"]) == (container, "damaged")
    layers = os.listdir(root / "layers")
    assert argosy("prune").out == "", "it runs"
    assert os.listdir(root / "layers") == layers
    short = container[:12]
    assert argosy("ps").out.splitlines()[1].split() == [short, "-", "damaged"]
    assert f"hint: argosy rm -f {short} removes the container" in argosy("rm", short, code=1).err
    if how == ("prune",):
        _kill(watcher, place / "lock")
        assert argosy("prune").out == f"{container}\n"
    else:
        assert argosy(*how, short).out == f"{short}\n"
    assert left_behind() == []
    assert argosy("ps", "-a").out.count("\n") == 1


def test_a_layer_that_is_damaged_at_its_right_size_is_removed_by_who_finds_it(
    argosy: Argosy, image: str, root: pathlib.Path
) -> None:
    """A pull would take it for what it is named after, and `prune` spares it for an hour."""
    argosy("pull", "-q", image)
    blobs = root / "images/blobs/sha256"
    layer = max(blobs.iterdir(), key=lambda path: path.stat().st_size)
    others = set(blobs.iterdir()) - {layer}
    with layer.open("r+b") as file:
        file.seek(5000)
        file.write(b"XXXX")
    done = alone(argosy, image, "true", code=125)
    assert ", which is damaged" in done.err
    assert "hint: what is damaged of it has been removed: pull it anew" in done.err
    assert set(blobs.iterdir()) == others
    alone(argosy, image, "true")


def _kill(watcher: int, lock: pathlib.Path) -> None:
    os.kill(watcher, signal.SIGKILL)
    with lock.open() as file:  # which is its until it has ended
        fcntl.flock(file, fcntl.LOCK_EX)


def test_a_removal_begins_with_the_record(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = Places(data=str(tmp_path), run=str(tmp_path), runtime=())
    places.make()
    container = Container.make(places, RunOptions(), image="i", digest="d", detached=False)
    order: list[str] = []
    monkeypatch.setattr("argosy.engine.container.discard", order.append)
    container.discard()
    assert order == [container.file("container.json"), container.path]


def test_a_lease_that_was_half_written_is_written_over(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("argosy.engine.network.LEASES", str(tmp_path))
    (tmp_path / "new").write_text("{")
    assert Bridge("/run")._lease("a" * 64, ()) == "10.87.0.2"
    assert os.listdir(tmp_path) == ["a" * 64]


def test_a_container_the_runtime_did_not_remove_is_kept_for_prune(
    argosy: Argosy, image: str, launcher: str, tmp_path: pathlib.Path, left_behind: Callable[[], list[str]]
) -> None:  # fmt: skip
    runtime = tmp_path / "lazy"
    runtime.write_text(
        f'#!/bin/sh\ncase "$*" in *" delete "*) kill -9 $$;; esac\nexec {launcher} "$@"\n'
    )
    runtime.chmod(0o755)
    whole = argosy.env["ARGOSY_RUNTIME"]  # type: ignore[attr-defined]
    argosy.env["ARGOSY_RUNTIME"] = str(runtime)  # type: ignore[attr-defined]
    alone(argosy, image, "sh", "-c", "exit 3", code=3)
    container = argosy("ps", "-a", "-q").out.strip()
    for force in ([], ["-f"]):
        done = argosy("rm", *force, container, code=1)
        assert (
            f"argosy: the runtime failed to delete container {container[:12]}\nhint: " in done.err
        )
    assert argosy("prune").out == ""
    argosy.env["ARGOSY_RUNTIME"] = whole  # type: ignore[attr-defined]
    (row,) = json.loads(argosy("ps", "-a", "--json").out)
    assert (row["Status"], row["ExitCode"]) == ("exited", 3)
    argosy("prune")
    assert [path for path in cgroups() if os.path.basename(path) == row["Id"]] == []
    assert left_behind() == []
