"""The part of Go's templates that people type after `--format`: fields, `json` and `range`."""

from __future__ import annotations

import json
import re
from typing import Any

from argosy.errors import UsageError

_TOKEN = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
_PATH = re.compile(r"(json\s+)?((?:\.[A-Za-z_][\w]*)+|\.)", re.ASCII)


def render(template: str, value: object) -> str:
    r"""Fill a template.

    Raises:
        UsageError: it has something that is not supported, or names a field that is not there.

    >>> render("{{.Name}}: {{range .Tags}}[{{.}}]{{end}}", {"Name": "app", "Tags": ["a", "b"]})
    'app: [a][b]'
    >>> render("{{json .}}", {"Tags": ["a", "b"]})
    '{"Tags":["a","b"]}'
    """
    parts = _TOKEN.split(template.replace("\\n", "\n").replace("\\t", "\t"))
    if any("{{" in text for text in parts[::2]):
        raise UsageError("template: {{ without }}")
    text, rest = _block(parts, 0, value, inside=False)
    if rest != len(parts):
        raise UsageError("template: {{end}} without {{range}}")
    return text


def _block(parts: list[str], at: int, value: object, *, inside: bool) -> tuple[str, int]:
    """Text and actions up to the end, or the matching `{{end}}`; `parts` alternates between the two."""
    out: list[str] = []
    while at < len(parts):
        if at % 2 == 0:
            out.append(parts[at])
        elif parts[at] == "end":
            if not inside:
                return "".join(out), at
            return "".join(out), at + 1
        elif parts[at].startswith("range "):
            text, at = _range(parts, at, value)
            out.append(text)
            continue
        else:
            out.append(_action(parts[at], value))
        at += 1
    if inside:
        raise UsageError("template: {{range}} without {{end}}")
    return "".join(out), at


def _range(parts: list[str], at: int, value: object) -> tuple[str, int]:
    items = _lookup(parts[at][len("range ") :].strip(), value)
    listed = list(items.values()) if isinstance(items, dict) else list(items or ())
    out = []
    end = at + 1
    for item in listed:
        text, end = _block(parts, at + 1, item, inside=True)
        out.append(text)
    if not listed:
        _, end = _skip(parts, at + 1)
    return "".join(out), end


def _skip(parts: list[str], at: int) -> tuple[str, int]:
    depth = 1
    for place in range(at if at % 2 else at + 1, len(parts), 2):
        depth += parts[place].startswith("range ") - (parts[place] == "end")
        if depth == 0:
            return "", place + 1
    raise UsageError("template: {{range}} without {{end}}")


def _action(text: str, value: object) -> str:
    match = _PATH.fullmatch(text)
    if not match:
        raise UsageError(
            f"template: {{{{{text[:60]}}}}} is not supported",
            hint="use {{.Field}}, {{json .Field}} or {{range .List}}…{{end}}",
        )
    found = _lookup(match[2], value)
    if match[1] or isinstance(found, (dict, list, bool)) or found is None:
        return json.dumps(found, ensure_ascii=False, separators=(",", ":"))  # as Go's
    return str(found)


def _lookup(path: str, value: Any) -> Any:
    for name in path.split("."):
        if not name:
            continue
        if not isinstance(value, dict) or name not in value:
            have = ", ".join(value) if isinstance(value, dict) else type(value).__name__
            raise UsageError(f"template: there is no field {name!r}; there is {have}")
        value = value[name]
    return value
