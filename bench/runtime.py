"""Start-up times of container runtimes, side by side: medians of alternating runs with the same bundle.

    python bench/runtime.py [--runs 20] [--busybox /bin/busybox] NAME=PATH ...

for example ``argosy=/usr/local/bin/argosy-runtime runc=/usr/sbin/runc crun=/usr/bin/crun``. Needs root. The last table
gives each runtime's median as a ratio of the second one's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

ROWS = ("run", "create", "start", "state", "exec", "kill", "delete", "create+start+delete")


def make_bundle(place: Path, busybox: str) -> None:
    rootfs = place / "rootfs"
    for name in ("bin", "dev", "proc", "sys", "etc"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy(busybox, rootfs / "bin/busybox")
    for name in ("true", "sleep"):
        os.symlink("busybox", rootfs / "bin" / name)
    subprocess.run(["runc", "spec"], cwd=place, check=True)
    config = json.loads((place / "config.json").read_text())
    config["process"].update(terminal=False, args=["/bin/true"])
    config["process"]["capabilities"].pop("ambient", None)
    config["process"]["rlimits"] = []
    (place / "config.json").write_text(json.dumps(config))


class Runner:
    def __init__(self, path: str, root: Path, bundle: Path) -> None:
        self.words = [path, "--root", str(root)]
        self.bundle = bundle
        self.count = 0
        self.times: dict[str, list[float]] = {row: [] for row in ROWS}
        self.rss = 0

    def call(self, row: str, *words: str) -> float:
        before = time.perf_counter()
        with tempfile.TemporaryFile() as said:  # a pipe would be held open by the container
            done = subprocess.run(
                [*self.words, *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                check=False,
            )
            said.seek(0)
            told = said.read().decode()
        spent = (time.perf_counter() - before) * 1000
        if done.returncode:
            raise SystemExit(f"{' '.join(self.words + list(words))}: {told}")
        self.times[row].append(spent)
        return spent

    def state(self, cid: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(
            subprocess.run([*self.words, "state", cid], capture_output=True, check=True).stdout
        )
        return found

    def round(self) -> None:
        self.count += 1
        cid = f"bench{os.getpid()}-{id(self) % 1000}-{self.count}"
        self.program("/bin/true")
        self.call("run", "run", "-b", str(self.bundle), cid)
        total = self.call("create", "create", "-b", str(self.bundle), cid)
        self.measure(int(str(self.state(cid)["pid"])))
        total += self.call("start", "start", cid)
        while self.state(cid)["status"] != "stopped":
            pass
        total += self.call("delete", "delete", cid)
        self.times["create+start+delete"].append(total)
        self.program("/bin/sleep", "1000")
        subprocess.run(
            [*self.words, "run", "-d", "-b", str(self.bundle), cid],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        self.call("state", "state", cid)
        self.call("exec", "exec", cid, "/bin/true")
        self.call("kill", "kill", cid, "KILL")
        subprocess.run([*self.words, "delete", "--force", cid], check=True)

    def measure(self, pid: int) -> None:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                self.rss = max(self.rss, int(line.split()[1]))

    def program(self, *words: str) -> None:
        path = self.bundle / "config.json"
        config = json.loads(path.read_text())
        config["process"]["args"] = list(words)
        path.write_text(json.dumps(config))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--busybox", default="/bin/busybox")
    parser.add_argument("runtimes", nargs="+", metavar="NAME=PATH")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-runtime-") as place:
        bundle = Path(place) / "bundle"
        bundle.mkdir()
        make_bundle(bundle, given.busybox)
        runners = {}
        for entry in given.runtimes:
            name, _, path = entry.partition("=")
            runners[name] = Runner(path, Path(place) / f"state-{name}", bundle)
        for _ in range(given.runs):
            for runner in runners.values():
                runner.round()
    report(runners)


def report(runners: dict[str, Runner]) -> None:
    print(f"{'ms (min / median)':<22}" + "".join(f"{name:>20}" for name in runners))
    for row in ROWS:
        cells = [
            f"{min(runner.times[row]):.1f} / {statistics.median(runner.times[row]):.1f}"
            for runner in runners.values()
        ]
        print(f"{row:<22}" + "".join(f"{cell:>20}" for cell in cells))
    print(f"{'init Rss (KB)':<22}" + "".join(f"{runner.rss:>20}" for runner in runners.values()))
    names = list(runners)
    if len(names) > 1:
        base = runners[names[1]]
        print(f"\n{'ratio to ' + names[1]:<22}" + "".join(f"{name:>20}" for name in names))
        for row in ROWS:
            reference = statistics.median(base.times[row])
            cells = [
                f"{statistics.median(runner.times[row]) / reference:.2f}"
                for runner in runners.values()
            ]
            print(f"{row:<22}" + "".join(f"{cell:>20}" for cell in cells))


if __name__ == "__main__":
    main()
