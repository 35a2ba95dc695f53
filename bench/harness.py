"""What every benchmark shares: rows and their targets, runs in turn, whole processes with their memory, peers.

A *row* is one number with a unit; a *study* is work that gives one or several rows for each contender. Contenders take
turns (A B A B ...), so that a machine that is busy for a while is busy for all of them.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import marshal
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

OURS = "argosy"
LESS = {"s", "ms", "MB"}  # units of which less is better; of rates more is

Attempt = Callable[[], Mapping[str, float]]
"""One contender's turn: it does the work and gives a value for each row."""


@dataclasses.dataclass(frozen=True)
class Target:
    """What an issue asks of a row.

    With `peers`, `bound` is a factor of the best of those that were measured; else it is a limit in the row's unit.
    """

    bound: float
    peers: tuple[str, ...] = ()

    def limit(self, medians: Mapping[str, float], less: bool) -> float | None:
        """The value that just meets the target, or None when no peer it speaks of was measured."""
        if not self.peers:
            return self.bound
        found = [medians[peer] for peer in self.peers if peer in medians]
        if not found:
            return None
        return self.bound * (min(found) if less else max(found))

    def says(self, unit: str) -> str:
        """The target in words."""
        word = "at most" if unit in LESS else "at least"
        if not self.peers:
            return f"{word} {self.bound:g} {unit}"
        return f"{word} {self.bound:.3g} x {' and '.join(self.peers)}"


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the result: a name, a unit (`s`, `ms`, `MB`, or a rate such as `MB/s`), and the targets."""

    name: str
    unit: str
    targets: tuple[Target, ...] = ()

    @property
    def less(self) -> bool:
        """Whether a smaller value is a better one."""
        return self.unit in LESS


@dataclasses.dataclass(frozen=True)
class Study:
    """Work that fills rows.

    `prepare` makes what the work needs, yields an attempt for each contender, and cleans up. `peers` are the programs
    it looks for; one that is missing becomes a named entry. `runs` and `quick` are turns of each contender. `profile`
    says where argosy's time goes; it is asked when a target is missed.
    """

    name: str
    says: str
    rows: tuple[Row, ...]
    prepare: Callable[[Stage], contextlib.AbstractContextManager[dict[str, Attempt]]]
    peers: tuple[str, ...] = ()
    runs: int = 5
    quick: int = 2
    profile: Callable[[Stage], str] | None = None
    root: bool = False


@dataclasses.dataclass
class Stage:
    """Where a run takes place: a directory for inputs and outputs, how much is wanted, and what a study has to say."""

    work: Path
    quick: bool
    runs: int | None = None
    notes: list[str] = dataclasses.field(default_factory=list)

    def size(self, full: int, quick: int) -> int:
        """The size that fits this run."""
        return quick if self.quick else full

    @contextlib.contextmanager
    def folder(self) -> Iterator[Path]:
        """A directory that is gone afterwards."""
        made = Path(tempfile.mkdtemp(dir=self.work))
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)


@dataclasses.dataclass
class Result:
    """What was measured of a study: values by row and contender, and what was missing."""

    study: Study
    values: dict[str, dict[str, list[float]]]
    missing: list[str]
    notes: list[str] = dataclasses.field(default_factory=list)
    skipped: str = ""
    profile: str = ""

    def medians(self, row: Row) -> dict[str, float]:
        """The median of each contender that gave values."""
        return {name: statistics.median(got) for name, got in self.values.get(row.name, {}).items()}

    def verdict(self, row: Row, target: Target) -> str:
        """`met`, `missed`, or why that cannot be said."""
        medians = self.medians(row)
        if OURS not in medians:
            return "not measured"
        limit = target.limit(medians, row.less)
        if limit is None:
            return "not measured: no peer"
        ours = medians[OURS]
        return "met" if (ours <= limit if row.less else ours >= limit) else "missed"

    def missed(self) -> bool:
        """Whether any target was missed."""
        return any(
            self.verdict(row, target) == "missed"
            for row in self.study.rows
            for target in row.targets
        )


def measured(study: Study, stage: Stage) -> Result:
    """Run a study: contenders in turn, then the profile where a target was missed."""
    result = Result(study, {row.name: {} for row in study.rows}, [])
    result.missing = [peer for peer in study.peers if find(peer) is None]
    if study.root and os.geteuid() != 0:
        result.skipped = "needs root"
        return result
    with study.prepare(stage) as attempts:
        for _ in range(stage.runs or (study.quick if stage.quick else study.runs)):
            for name, attempt in attempts.items():
                for row, value in attempt().items():
                    result.values[row].setdefault(name, []).append(value)
    result.notes, stage.notes = stage.notes, []
    if study.profile is not None and result.missed():
        result.profile = study.profile(stage)
    return result


def find(name: str) -> str | None:
    """The path of a program, in $ARGOSY_PEERS or on the path."""
    places = [os.environ.get("ARGOSY_PEERS", ""), os.environ.get("PATH", "")]
    return shutil.which(name, path=os.pathsep.join(place for place in places if place))


def argosy(*words: str) -> list[str]:
    """The command line of argosy, as it is installed beside this interpreter."""
    script = Path(sys.executable).with_name("argosy")
    return [str(script), *words] if script.exists() else [sys.executable, "-m", "argosy", *words]


def present(commands: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Those command lines whose program is there, each by its whole path."""
    found = {}
    for name, words in commands.items():
        path = words[0] if words[0].startswith("/") else find(words[0])
        if path is not None:
            found[name] = [path, *words[1:]]
    return found


_LAUNCHER = """
import marshal, os, sys, time
while True:
    try:
        command, env, errors = marshal.load(sys.stdin.buffer)
    except EOFError:
        break
    null = os.open(os.devnull, os.O_RDWR)
    said = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    places = [(os.POSIX_SPAWN_DUP2, fd, n) for n, fd in enumerate((null, null, said))]
    before = time.perf_counter()
    pid = os.posix_spawn(command[0], command, env, file_actions=places)
    _, status, usage = os.wait4(pid, 0)
    taken = time.perf_counter() - before
    os.close(null)
    os.close(said)
    marshal.dump((taken, usage.ru_maxrss, os.waitstatus_to_exitcode(status)), sys.stdout.buffer)
    sys.stdout.buffer.flush()
"""


class ProgramError(Exception):
    """A program that was measured ended with an error."""


@functools.cache
def _launcher() -> subprocess.Popen[bytes]:
    """A small process that starts what is measured.

    The kernel counts what a process held before it became another program, and that is its parent's memory: the parent
    has to be smaller than anything measured.
    """
    command = [sys.executable, "-I", "-S", "-c", _LAUNCHER]
    launcher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    atexit.register(launcher.__exit__, None, None, None)  # closes its stdin, and waits for its end
    return launcher


def process(command: Sequence[str]) -> tuple[float, float]:
    """Seconds of a whole process, and the megabytes (10**6 bytes) it held at most.

    Raises:
        ProgramError: its exit code is not 0; the message is what it said.
    """
    launcher = _launcher()
    assert launcher.stdin is not None
    assert launcher.stdout is not None
    with tempfile.NamedTemporaryFile() as said:
        marshal.dump((list(command), dict(os.environ), said.name), launcher.stdin)
        launcher.stdin.flush()
        taken, held, code = marshal.load(launcher.stdout)
        if code:
            told = said.read().decode(errors="replace").strip()
            raise ProgramError(f"{' '.join(command)}: exit code {code}: {told}")
    return taken, held * 1024 / 1e6


@contextlib.contextmanager
def server(
    command: Sequence[str], ready: Callable[[], bool], *, env: Mapping[str, str] | None = None
) -> Iterator[tuple[int, float]]:
    """A server until the block ends: its process id, and the seconds until `ready` said so.

    It is asked to stop by its process id, and killed when it has not within 20 seconds.
    """
    began = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            command,
            env=dict(env or os.environ),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        try:
            while not ready():
                if child.poll() is not None or time.perf_counter() - began > 60:
                    said.seek(0)
                    told = said.read().decode(errors="replace")[-2000:]
                    raise SystemExit(f"{' '.join(command)}: did not start: {told}")
                time.sleep(0.002)
            yield child.pid, time.perf_counter() - began
        finally:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def peak(pid: int) -> float:
    """The most megabytes (10**6 bytes) that the largest of a process and its children has held."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = []
    for one in [str(pid), *children]:
        lines = Path(f"/proc/{one}/status").read_text().splitlines()
        found += [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return max(found) * 1024 / 1e6


def once(path: Path, make: Callable[[Path], None]) -> Path:
    """A path that is made by the first who asks."""
    if not path.exists():
        make(path)
    return path


def told(command: Sequence[str]) -> str:
    """What a program prints, on either stream."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.stdout


def profiled(*words: str) -> str:
    """Where a command of argosy spends its time: the functions with the most of their own."""
    import io
    import pstats

    with tempfile.NamedTemporaryFile(suffix=".pstats") as out:
        command = [sys.executable, "-m", "cProfile", "-o", out.name, "-m", "argosy", *words]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        text = io.StringIO()
        stats = pstats.Stats(out.name, stream=text).strip_dirs().sort_stats("tottime")
        stats.print_stats(14)
    lines = [line.rstrip() for line in text.getvalue().splitlines() if line.strip()]
    return "\n".join(lines[1:])


def system_calls(*command: str) -> str:
    """Where a program and its children wait: the system calls with the most time."""
    strace = find("strace")
    if strace is None:
        return "strace is not installed"
    with tempfile.NamedTemporaryFile("r") as out:
        subprocess.run(
            [strace, "-f", "-c", "-w", "-o", out.name, *command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        return "\n".join(Path(out.name).read_text().splitlines()[:14])
