"""Masked and read-only paths: on the real kernel."""

from __future__ import annotations

import pytest

from tests.runtime.bundlekit import Bundle, Runtime


class TestMasks:
    def test_files_and_directories_are_hidden(self, runtime: Runtime, bundle: Bundle) -> None:
        (bundle.rootfs / "secret").mkdir()
        (bundle.rootfs / "secret/x").write_text("x")
        (bundle.rootfs / "secret2").mkdir()
        (bundle.rootfs / "key").write_text("key")
        bundle.linux["maskedPaths"] = ["/secret", "/secret2/", "/key", "/missing", "/key/below"]
        script = "ls /secret /secret2; cat /key; touch /secret/y 2>/dev/null || echo refused"
        output = runtime.output(bundle.sh(script))
        assert "x" not in output.replace("refused", "")
        assert output.endswith("refused\n")

    def test_directories_share_one_file_system(self, runtime: Runtime, bundle: Bundle) -> None:
        for name in ("one", "two", "three"):
            (bundle.rootfs / name).mkdir()
        bundle.linux["maskedPaths"] = ["/one", "/two", "/three"]
        output = runtime.output(bundle.sh("stat -c %d /one /two /three"))
        assert len(set(output.split())) == 1

    def test_read_only_paths(self, runtime: Runtime, bundle: Bundle) -> None:
        (bundle.rootfs / "data").mkdir()
        bundle.linux["readonlyPaths"] = ["/data", "/missing", "/proc/sys"]
        script = "touch /data/x 2>/dev/null || echo refused; echo 1 2>/dev/null >/proc/sys/kernel/msgmax || echo refused"
        assert runtime.output(bundle.sh(script)) == "refused\nrefused\n"

    @pytest.mark.parametrize("path", ["/", "/dev/.."])
    def test_the_root_as_a_read_only_path(
        self, runtime: Runtime, bundle: Bundle, path: str
    ) -> None:
        bundle.linux["readonlyPaths"] = [path, "/proc/sys"]
        script = "touch /x 2>/dev/null || echo refused; touch /dev/shm/x && echo taken"
        assert runtime.output(bundle.sh(script)) == "refused\ntaken\n"

    def test_a_second_place_of_the_root_is_not_the_root(
        self, runtime: Runtime, bundle: Bundle
    ) -> None:
        (bundle.rootfs / "again").mkdir()
        bundle.mount("/again", "bind", str(bundle.rootfs), "bind")
        bundle.linux["readonlyPaths"] = ["/again"]
        script = "touch /x && echo taken; touch /again/y 2>/dev/null || echo refused"
        assert runtime.output(bundle.sh(script)) == "taken\nrefused\n"
