"""Templates after `--format`, and what `argosy inspect` prints raw."""

from __future__ import annotations

import pathlib

import pytest

from argosy.cli.template import render
from argosy.errors import UsageError
from tests.cli.conftest import Run


@pytest.mark.parametrize(
    "template",
    ["{{.Digest", "{{", "{{.Digest}} {{.Size", "{{.Digest} }", "{{range .Layers}}{{.{{end}}"],
)
def test_a_brace_that_is_not_closed_is_wrong_usage(
    argosy: Run, layout: pathlib.Path, template: str
) -> None:
    done = argosy("inspect", "-f", template, f"oci:{layout}:v1", code=64)
    assert done.out == ""
    assert done.err.startswith("argosy: template: ")


def test_other_braces_are_text() -> None:
    assert render("}} {.A} {{.A}}", {"A": 1}) == "}} {.A} 1"
    with pytest.raises(UsageError, match="without }}"):
        render("{{{", {})


@pytest.mark.parametrize("tag", ["v1", "multi"])
def test_the_raw_configuration_is_asked_for_as_with_skopeo(
    argosy: Run, layout: pathlib.Path, tag: str
) -> None:
    place = f"oci:{layout}:{tag}"
    assert argosy("inspect", "--raw", "--config", place).out == argosy("config", place).out
    assert argosy("inspect", "--raw", place).out == argosy("manifest", "get", place).out


@pytest.mark.parametrize("option", ["--raw", "--config"])
def test_a_template_is_not_left_out_where_bytes_are_printed(
    argosy: Run, layout: pathlib.Path, option: str
) -> None:
    done = argosy("inspect", option, "-f", "{{.Digest}}", f"oci:{layout}:v1", code=64)
    assert done.out == ""
    assert "jq" in done.err


def test_json_is_written_without_spaces_as_by_other_tools(
    argosy: Run, layout: pathlib.Path
) -> None:
    place = f"oci:{layout}:v1"
    layers = argosy("inspect", "--json", place).json["Layers"]
    shown = argosy("inspect", "-f", "{{json .Layers}}", place).out
    assert shown == "[" + ",".join(f'"{digest}"' for digest in layers) + "]\n"
