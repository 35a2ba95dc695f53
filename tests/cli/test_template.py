"""Templates after `--format`, and what `argosy inspect` prints raw."""

from __future__ import annotations

import pathlib

import pytest

from argosy.cli.template import Names, render
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


def test_json_in_the_place_of_a_template_is_json(argosy: Run, layout: pathlib.Path) -> None:
    place = f"oci:{layout}:v1"
    assert (
        argosy("inspect", "--format", "json", place).out == argosy("inspect", "--json", place).out
    )


def test_json_is_written_without_spaces_as_by_other_tools(
    argosy: Run, layout: pathlib.Path
) -> None:
    place = f"oci:{layout}:v1"
    layers = argosy("inspect", "--json", place).json["Layers"]
    shown = argosy("inspect", "-f", "{{json .Layers}}", place).out
    assert shown == "[" + ",".join(f'"{digest}"' for digest in layers) + "]\n"


FACTS = {
    "Name": "app",
    "Variant": None,
    "Env": ["A=1", "B=2"],
    "Cmd": [],
    "Labels": Names({"org.example.by": "me", "a": "1"}),
    "LayersData": [{"Size": 3, "Annotations": None}, {"Size": 4, "Annotations": Names({"x": "y"})}],
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ('{{index .Labels "org.example.by"}}', "me"),
        ('[{{index .Labels "none"}}]', "[]"),
        ('{{index .Env 1}} {{(index .LayersData 1).Size}} {{index .LayersData 0 "Size"}}', "B=2 4 3"),
        ("{{.Labels.none}} {{.Variant}} {{.Labels.a}}", "<no value> <no value> 1"),
        ("{{json .Labels.none}}{{.Labels | json}}", 'null{"org.example.by":"me","a":"1"}'),
        (r'{{"a\n\"}}"}}{{`\`}}\n', 'a\n"}}\\\n'),
        ("{{len .Env}}{{len .Labels}}{{len .Cmd}}{{len .Name}}", "2203"),
        ('{{join .Env ", "}}|{{join .Cmd ","}}|{{"," | join .Env}}', "A=1, B=2||A=1,B=2"),
        ("{{if .Cmd}}a{{else if .Env}}b{{else}}c{{end}}", "b"),
        ("{{if .Labels.none}}a{{else}}c{{end}}{{if (len .Cmd)}}d{{end}}", "c"),
        ("{{println .Name 7}}{{println}}", "app 7\n\n"),
        ('{{printf "%s=%d%% %q %v" .Name 3 .Name .Env}}', 'app=3% "app" ["A=1","B=2"]'),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "a=1;org.example.by=me;"),
        ("{{range $i, $e := .Env}}{{if $i}}, {{end}}{{$e}}{{$.Name}}{{end}}", "A=1app, B=2app"),
        ("{{range $e := .LayersData}}{{$e.Size}}{{.Annotations.x}} {{end}}", "3<no value> 4y "),
        ("{{range .Cmd}}{{range .}}{{end}}{{else}}none{{end}}", "none"),
        ("a \n {{- .Name -}} \n b {{.Name}} c", "aappb app c"),
    ],
)  # fmt: skip
def test_a_template_is_filled_as_go_fills_it(template: str, text: str) -> None:
    assert render(template, FACTS) == text


@pytest.mark.parametrize(
    "template",
    [
        *("{{.Nme}}", "{{.Name.x}}", "{{$x}}", "{{range $k, $v := .Env}}{{end}}{{$k}}", "{{.Env.x}}"),
        *("{{index .Env 2}}", '{{index .Env "a"}}', '{{index .Name "a"}}', "{{range .Name}}{{end}}"), "{{index .Labels .Env}}",
        *("{{len 3}}", "{{join .Env 3}}", '{{join "a" ","}}', "{{join .Env}}", "{{json}}", "{{index}}"),
        *('{{printf "%s"}}', '{{printf "%9s" .Name}}', '{{printf "a" .Name}}', '{{printf "%"}}'),
        *("{{}}", "{{nosuch .Name}}", "{{.Name .Env}}", "{{.Name | .Env}}", "{{json .Name", "{{(.Name}}"),
        *("{{if .Name}}", "{{else}}", "{{end}}", "{{if .Name}}{{else}}{{else}}{{end}}", "{{end .Name}}"),
        *("{{if}}{{end}}", "{{range .Env}}{{else .Env}}{{end}}", r'{{"\x"}}', '{{"a}}', "{{.Name)}}"),
        *("{{$x := .Name}}", "{{range $k.x := .Env}}{{end}}", "{{range $k $v := .Env}}{{end}}", "{{)}}"),
        *("{{if .Name}}" * 40 + "{{end}}" * 40, "{{" + "(" * 5000 + ".Name" + ")" * 5000 + "}}"),
        "{{if .Cmd}}" + "{{else if .Cmd}}" * 5000 + "{{end}}",
    ],
)  # fmt: skip
def test_what_a_template_cannot_have_is_wrong_usage_in_one_line(template: str) -> None:
    with pytest.raises(UsageError, match=r"\Atemplate: .*\Z"):
        render(template, FACTS)


def test_a_label_with_dots_is_printed(argosy: Run, tmp_path: pathlib.Path) -> None:
    place = f"oci:{tmp_path}/a:v1"
    argosy("new", place)
    argosy("mutate", "-q", place, "--label", "org.example.by=me", "-t", place)
    words = ("inspect", place, "-f")
    assert argosy(*words, '{{index .Labels "org.example.by"}} {{.Labels.foo}}').out == (
        "me <no value>\n"
    )


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ('{{if eq .Name "app"}}a{{else}}b{{end}}', "a"),
        ('{{if eq .Name "x" "app"}}a{{end}}', "a"),
        ('{{if ne .Name "app"}}a{{else}}b{{end}}', "b"),
        ("{{eq .Count 1}} {{eq .Count true}} {{eq .Flag true}}", "false false true"),
        ('{{eq .Labels.none ""}} {{ne .Labels.by ""}}', "true true"),
        ("{{if and .Name .Flag}}a{{end}}{{if and .Name .Empty}}b{{end}}", "a"),
        ('{{or .Labels.none .Empty "neither"}} {{or .Name "x"}}', "neither app"),
        ("{{not .Empty}} {{not .Flag}} {{.Name | not}}", "true false false"),
        ("{{if (not (eq (len .Empty) 0))}}a{{else}}b{{end}}", "b"),
        ("{{with .Labels.by}}[{{.}}]{{end}}{{with .Empty}}x{{else}}none of {{.Name}}{{end}}",
         "[me]none of app"),
        ("{{with $l := .Labels}}{{$l.by}} {{.by}} {{$.Name}}{{end}}", "me me app"),
        ("{{.Name | upper}} {{lower `ÄB`}}", "APP äb"),
    ],
)  # fmt: skip
def test_what_people_compare_is_compared_as_by_docker(template: str, filled: str) -> None:
    labels = Names(by="me")
    value = {"Name": "app", "Count": 2, "Flag": True, "Empty": [], "Labels": labels}
    assert render(template, value) == filled


@pytest.mark.parametrize(
    "template", ["{{with .A}}", "{{with}}{{end}}", "{{eq .A}}", "{{not}}", "{{ne .A .A .A}}"]
)
def test_a_comparison_of_too_little_or_too_much_is_wrong_usage(template: str) -> None:
    with pytest.raises(UsageError, match="template: "):
        render(template, {"A": 1})
