"""Every row of image-spec conversion.md."""

from __future__ import annotations

import dataclasses

import pytest

from argosy.bundle.convert import as_rootless, runtime_config, with_id_maps
from argosy.bundle.users import User
from argosy.errors import InvalidConfigError
from argosy.spec.imageconfig import ExecutionParameters, ImageConfig, LayerStack

BASE = ImageConfig(architecture="amd64", os="linux", rootfs=LayerStack(type="layers"))


def _config(**execution: object) -> ImageConfig:
    return dataclasses.replace(BASE, config=ExecutionParameters(**execution))  # type: ignore[arg-type]


def test_working_directory_environment_entrypoint_and_cmd_are_verbatim() -> None:
    made = runtime_config(
        _config(
            working_dir="/srv/../x", env=("A=b=c", "PATH=/x"), entrypoint=("e",), cmd=("c", "d")
        )
    )
    process = made["process"]
    assert process["cwd"] == "/srv/../x"
    assert process["env"][:2] == ["A=b=c", "PATH=/x"]
    assert process["args"] == ["e", "c", "d"]


def test_variables_of_the_image_are_never_overridden() -> None:
    env = runtime_config(_config(env=("PATH=/x", "HOME=/y", "TERM=dumb")))["process"]["env"]
    assert env == ["PATH=/x", "HOME=/y", "TERM=dumb"]
    assert (
        runtime_config(_config(), user=User(uid=1, home="/me"))["process"]["env"][-1] == "HOME=/me"
    )


def test_implicit_annotations_are_those_of_the_specification() -> None:
    config = dataclasses.replace(
        _config(stop_signal="SIGINT", exposed_ports=("80/tcp", "53/udp")),
        variant="v2",
        os_version="10",
        os_features=("a", "b"),
        author="me",
        created="2020-01-01T00:00:00Z",
    )
    prefix = "org.opencontainers.image."
    assert runtime_config(config)["annotations"] == {
        prefix + "os": "linux",
        prefix + "architecture": "amd64",
        prefix + "variant": "v2",
        prefix + "os.version": "10",
        prefix + "os.features": "a,b",
        prefix + "author": "me",
        prefix + "created": "2020-01-01T00:00:00Z",
        prefix + "stopSignal": "SIGINT",
        prefix + "exposedPorts": "80/tcp,53/udp",
    }


def test_labels_take_precedence_over_implicit_annotations() -> None:
    made = runtime_config(_config(labels={"org.opencontainers.image.os": "mine", "x": "y"}))
    assert made["annotations"]["org.opencontainers.image.os"] == "mine"
    assert made["annotations"]["x"] == "y"


def test_a_user_is_numbers_and_groups() -> None:
    made = runtime_config(_config(), user=User(uid=1, gid=2, additional_gids=(3,)))
    assert made["process"]["user"] == {"uid": 1, "gid": 2, "additionalGids": [3]}
    assert runtime_config(_config(user="5:6"))["process"]["user"] == {"uid": 5, "gid": 6}


def test_a_user_that_needs_the_database_is_an_error_without_it() -> None:
    with pytest.raises(InvalidConfigError, match="www"):
        runtime_config(_config(user="www"))


def test_a_volume_is_an_empty_file_system_at_its_path() -> None:
    mounts = runtime_config(_config(volumes=("/data/",)))["mounts"]
    assert (mounts[-1]["destination"], mounts[-1]["type"], mounts[-1]["source"]) == (
        "/data",
        "tmpfs",
        "tmpfs",
    )
    assert (
        len(runtime_config(_config(volumes=("/data",)), volumes=False)["mounts"]) == len(mounts) - 1
    )


@pytest.mark.parametrize("path", ["data", "", "/", "//", "/..", "/a\0"])
def test_a_volume_that_is_no_place_in_the_container_is_refused(path: str) -> None:
    with pytest.raises(InvalidConfigError, match="Volumes"):
        runtime_config(_config(volumes=(path,)))


@pytest.mark.parametrize("item", ["", "=x", "A\0=1"])
def test_a_variable_without_a_name_is_refused(item: str) -> None:
    with pytest.raises(InvalidConfigError, match=r"Env\[0\]"):
        runtime_config(_config(env=(item,)))


def test_id_maps_become_a_user_namespace() -> None:
    made = with_id_maps(runtime_config(BASE), [(0, 100_000, 65_536)], [(0, 100_000, 65_536)])
    assert {"type": "user"} in made["linux"]["namespaces"]
    assert made["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 100_000, "size": 65_536}]


def test_rootless_needs_nothing_only_root_may() -> None:
    made = as_rootless(runtime_config(BASE), 1000, 1001)
    kinds = {item["type"] for item in made["linux"]["namespaces"]}
    assert "user" in kinds
    assert "network" not in kinds
    assert "resources" not in made["linux"]
    assert made["linux"]["gidMappings"] == [{"containerID": 0, "hostID": 1001, "size": 1}]
    assert not any(o.startswith("gid=") for m in made["mounts"] for o in m["options"])


def test_the_function_is_pure() -> None:
    one = runtime_config(BASE)
    one["mounts"].clear()
    one["process"]["capabilities"]["bounding"].clear()
    assert runtime_config(BASE)["mounts"]
    assert runtime_config(BASE)["process"]["capabilities"]["bounding"]
