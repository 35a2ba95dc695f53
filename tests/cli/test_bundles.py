"""The commands that unpack images into bundles, and look at those."""

from __future__ import annotations

import json
import os
import pathlib

from tests.cli.conftest import Run
from tests.cli.test_images import opened

ROOT = os.geteuid() == 0


def test_unpack_repack_and_bundle_diff(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    place, bundle = f"oci:{layout}:v1", tmp_path / "b"
    rootless = [] if ROOT else ["--rootless"]
    argosy("unpack", *rootless, place, bundle)
    argosy("bundle", "validate", bundle)
    assert argosy("bundle", "diff", bundle).out == ""
    (bundle / "rootfs/new").write_text("x")
    assert "A /new" in argosy("bundle", "diff", bundle).out
    kinds = {row["path"]: row["kind"] for row in argosy("bundle", "diff", bundle, "--json").json}
    assert kinds["/new"] == "added"
    argosy("repack", place, bundle, "-t", "v2", "--refresh-bundle", "--history.comment", "mine")
    assert opened(layout, "v2").config.history[-1].comment == "mine"
    assert argosy("bundle", "diff", bundle).out == ""
    argosy("repack", f"oci:{layout}:v2", bundle)
    argosy("unpack", place, bundle, code=1)
    argosy("unpack", "--rootless", "--uid-map", "0:1:1", place, tmp_path / "c", code=64)
    argosy("bundle", "diff", tmp_path, code=1)


def test_unpack_leaves_out_labels_a_runtime_would_act_on_and_says_so(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    argosy("mutate", f"oci:{layout}:v1", "-l", "org.criu.config=/etc/x")
    rootless = [] if ROOT else ["--rootless"]
    assert "org.criu.config" in argosy("unpack", *rootless, f"oci:{layout}:v1", tmp_path / "b").err
    notes = json.loads((tmp_path / "b/config.json").read_bytes())["annotations"]
    assert "org.criu.config" not in notes


def test_rootfs_only_makes_no_bundle(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    rootless = [] if ROOT else ["--rootless"]
    argosy("unpack", *rootless, "--rootfs-only", f"oci:{layout}:v1", tmp_path / "r")
    assert "config.json" not in os.listdir(tmp_path / "r")


def test_the_configuration_of_a_bundle_is_printed_without_unpacking(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "passwd").write_text("www:x:33:34::/srv:/bin/sh\n")
    place = f"oci:{layout}:v1"
    argosy(
        "insert",
        place,
        tmp_path / "passwd",
        "/etc/passwd",
        "--owner",
        f"{os.geteuid()}:{os.getegid()}",
    )
    argosy("mutate", place, "-u", "www")
    made = argosy("bundle", "config", place).json
    assert made["process"]["user"] == {"uid": 33, "gid": 34}
    argosy("unpack", "-q", *([] if ROOT else ["--rootless"]), place, tmp_path / "b")
    if ROOT:
        assert json.loads((tmp_path / "b/config.json").read_bytes()) == made
    argosy("mutate", place, "-u", "nobody-here")
    argosy("bundle", "config", place, code=1)
