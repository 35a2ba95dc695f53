"""The part of Go's templates that people type after `--format`: fields, `range`, `if`, `with`, and some
functions.

A template is split into texts and actions, an action into tokens; these are parsed into functions of a scope, and the
outermost is called. What nests has a limit.
"""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from argosy.errors import UsageError

_MAX_DEPTH = 32
"""How deep blocks and parentheses nest."""

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<close>(?:(?<=\s)-)?\}\})
    |(?P<string>"(?:[^"\\\n]|\\.)*"|`[^`]*`)
    |(?P<number>-?[0-9]+(?![\w.]))
    |(?P<bool>(?:true|false)(?!\w))
    |(?P<path>\$?(?:\.[A-Za-z_]\w*)+|\$\w+(?:\.[A-Za-z_]\w*)*|[.$])
    |(?P<word>[A-Za-z_]\w*)
    |(?P<shut>\)(?:\.[A-Za-z_]\w*)*)
    |(?P<mark>:=|[(,|])
    )""",
    re.VERBOSE | re.ASCII,
)
_BOTH = ["path", ",", "path", ":="]
_VERB = re.compile(r"%(.?)", re.DOTALL)


class Names(dict[str, str]):
    """A map whose keys are anybody's, as of labels: a key that is not there is no mistake."""


class _Scope(NamedTuple):
    """What names mean at a place of the template: `.` and, with its `$`, each variable; `$` is the whole value."""

    dot: Any
    variables: Mapping[str, Any]


_Text = Callable[[_Scope], str]
_Value = Callable[[_Scope], Any]


def render(template: str, value: object) -> str:
    r"""Fill a template.

    Raises:
        UsageError: it has something that is not supported, or names a field that is not there.

    >>> render("{{.Name}}: {{range .Tags}}[{{.}}]{{end}}", {"Name": "app", "Tags": ["a", "b"]})
    'app: [a][b]'
    >>> render("{{json .}}", {"Tags": ["a", "b"]})
    '{"Tags":["a","b"]}'
    >>> render('{{index .Labels "org.example.by"}}', {"Labels": {"org.example.by": "me"}})
    'me'
    """
    return _Template(deque(_parts(template))).whole()(_Scope(value, {"$": value}))


# ------------------------------------------------------------------------------------------------------------- reading


class _Action:
    """What stands between two braces: tokens, each with its kind, taken from the left."""

    def __init__(self, shown: str, tokens: Sequence[tuple[str, str]]) -> None:
        self._shown = shown
        self._tokens = deque(tokens)

    @property
    def next(self) -> tuple[str, str]:
        return self._tokens[0] if self._tokens else ("", "")

    def take(self) -> str:
        return self._tokens.popleft()[1]

    def takes(self, text: str) -> bool:
        """Take the next token if it is this one."""
        found = self.next[1] == text
        if found:
            self.take()
        return found

    def declared(self) -> list[str]:
        """Take the variables of `$value :=` or `$key, $value :=`, the value first."""
        shape = [text if kind == "mark" else kind for kind, text in self._tokens]
        count = 1 if shape[:2] == ["path", ":="] else 2 if shape[:4] == _BOTH else 0
        names = [self.take() for _ in range(2 * count)][::2]
        if not all(re.fullmatch(r"\$\w+", name) for name in names):
            raise self.refused()
        return names[::-1]

    def ends(self) -> None:
        if self._tokens:
            raise self.refused()

    def refused(self) -> UsageError:
        return UsageError(
            f"template: {self._shown} is not supported",
            hint='use {{.Field}}, {{index .Labels "a.b"}}, {{range .List}}…{{end}}, {{if .Field}}…{{else}}…{{end}} '
            f"and the functions {', '.join(_FUNCTIONS)}",
        )  # fmt: skip


def _parts(template: str) -> Iterator[str | _Action]:
    """Texts and actions by turns."""
    at, trim = 0, False
    while True:
        start = template.find("{{", at)
        text = template[at : start if start >= 0 else None]
        text = text.lstrip() if trim else text
        if start >= 0 and re.match(r"-\s", template[start + 2 : start + 4]):
            text, begin = text.rstrip(), start + 3
        else:
            begin = start + 2
        yield text.replace("\\n", "\n").replace("\\t", "\t")
        if start < 0:
            return
        action, at = _action(template, start, begin)
        trim = template[at - 3] == "-"
        yield action


def _action(template: str, start: int, at: int) -> tuple[_Action, int]:
    tokens: list[tuple[str, str]] = []
    while match := _TOKEN.match(template, at):
        at, kind = match.end(), match.lastgroup or ""
        if kind == "close":
            return _Action(template[start:at][:60], tokens), at
        tokens.append((kind, match[kind]))
    end = template.find("}}", at)
    if end < 0 or template.find("{{", at, end) >= 0:
        raise UsageError("template: {{ without }}")
    raise _Action(template[start : end + 2][:60], ()).refused()


class _Template:
    """The texts and actions of a template, parsed from the left."""

    def __init__(self, parts: deque[str | _Action]) -> None:
        self._parts = parts

    def whole(self) -> _Text:
        body, last = self._block(0)
        if last is not None:
            raise UsageError(
                f"template: {{{{{last.next[1]}}}}} without {{{{range}}}}, {{{{if}}}} or {{{{with}}}}"
            )
        return body

    def _block(self, depth: int) -> tuple[_Text, _Action | None]:
        """All up to an `end` or `else`, and that."""
        if depth > _MAX_DEPTH:
            raise UsageError(f"template: nests deeper than {_MAX_DEPTH}")
        made: list[_Text] = []
        while self._parts:
            part = self._parts.popleft()
            if isinstance(part, str):
                made.append(_constant(part))
            elif part.next[1] in ("end", "else"):
                return _joined(made), part
            else:
                made.append(self._made(part, depth))
        return _joined(made), None

    def _made(self, action: _Action, depth: int) -> _Text:
        if action.takes("range"):
            return self._range(action, depth)
        if action.takes("if"):
            return self._if(action, depth)
        if action.takes("with"):
            return self._with(action, depth)
        value = _pipeline(action)
        action.ends()
        return lambda scope: _text(value(scope))

    def _branches(self, depth: int, word: str) -> tuple[_Text, _Text]:
        """What stands before and after an `else`, up to the `end`."""
        body, last = self._block(depth + 1)
        if last is not None and last.takes("else"):
            if last.takes("if"):
                return body, self._if(last, depth + 1)
            last.ends()
            other, last = self._block(depth + 1)
        else:
            other = _joined(())
        if last is None or not last.takes("end"):
            raise UsageError(f"template: {{{{{word}}}}} without {{{{end}}}}")
        last.ends()
        return body, other

    def _if(self, action: _Action, depth: int) -> _Text:
        value = _pipeline(action)
        action.ends()
        body, other = self._branches(depth, "if")
        return lambda scope: body(scope) if value(scope) else other(scope)

    def _with(self, action: _Action, depth: int) -> _Text:
        names = action.declared()[:1]
        value = _pipeline(action)
        action.ends()
        body, other = self._branches(depth, "with")

        def made(scope: _Scope) -> str:
            dot = value(scope)
            inner = _Scope(dot, {**scope.variables, **dict.fromkeys(names, dot)})
            return body(inner) if dot else other(scope)

        return made

    def _range(self, action: _Action, depth: int) -> _Text:
        names = action.declared()
        value = _pipeline(action)
        action.ends()
        body, other = self._branches(depth, "range")

        def made(scope: _Scope) -> str:
            inner = [
                _Scope(item, {**scope.variables, **dict(zip(names, (item, key), strict=False))})
                for key, item in _items(value(scope))
            ]
            return "".join(map(body, inner)) if inner else other(scope)

        return made


def _constant(value: Any) -> _Value:
    return lambda _: value


def _joined(parts: Sequence[_Text]) -> _Text:
    return lambda scope: "".join(part(scope) for part in parts)


def _pipeline(action: _Action, depth: int = 0) -> _Value:
    """Commands, each with the value of the one before it as its last argument."""
    if depth > _MAX_DEPTH:
        raise UsageError(f"template: nests deeper than {_MAX_DEPTH}")
    value = _command(action, depth, ())
    while action.takes("|"):
        value = _command(action, depth, (value,))
    return value


def _command(action: _Action, depth: int, piped: tuple[_Value, ...]) -> _Value:
    kind, name = action.next
    if kind != "word":
        if piped:
            raise action.refused()
        return _operand(action, depth)
    if name not in _FUNCTIONS:
        raise action.refused()
    action.take()
    function, least, most = _FUNCTIONS[name]
    arguments: list[_Value] = []
    while action.next[0] in ("string", "number", "bool", "path") or action.next[1] == "(":
        arguments.append(_operand(action, depth))
    arguments += piped
    if not least <= len(arguments) <= most:
        raise action.refused()
    return lambda scope: function(*(argument(scope) for argument in arguments))


def _operand(action: _Action, depth: int) -> _Value:
    kind = action.next[0]
    if action.takes("("):
        value = _pipeline(action, depth + 1)
        if action.next[0] != "shut":
            raise action.refused()
        path = action.take()[2:]
        return lambda scope: _lookup(path, value(scope))
    if kind == "string":
        return _constant(_string(action.take()))
    if kind == "number":
        return _constant(int(action.take()[:18]))
    if kind == "bool":
        return _constant(action.take() == "true")
    if kind != "path":
        raise action.refused()
    name, _, path = action.take().partition(".")
    if not name:
        return lambda scope: _lookup(path, scope.dot)
    return lambda scope: _lookup(path, _variable(name, scope))


def _string(text: str) -> str:
    if text.startswith("`"):
        return text[1:-1]
    try:
        return str(json.loads(text))
    except ValueError:
        raise UsageError(
            f"template: {text[:60]}: an escape of it is not supported",
            hint=r"use those of JSON, such as \n, \t, \" and \u00e9",
        ) from None


# ------------------------------------------------------------------------------------------------------------- filling


def _lookup(path: str, value: Any) -> Any:
    for name in path.split(".") if path else ():
        value = _entry(value, name)
    return value


def _entry(value: Any, name: object) -> Any:
    """A field of an object, or an entry of a map, which need not be there."""
    if isinstance(name, str):
        if value is None or (isinstance(value, Names) and name not in value):
            return None
        if isinstance(value, dict) and name in value:
            return value[name]
    have = ", ".join(value) if isinstance(value, dict) else type(value).__name__
    raise UsageError(f"template: there is no field {name!r:.60}; there is {have}")


def _variable(name: str, scope: _Scope) -> Any:
    if name not in scope.variables:
        raise UsageError(f"template: there is no variable {name}")
    return scope.variables[name]


def _items(value: Any) -> list[tuple[Any, Any]]:
    """What `range` goes through, each with its key or position."""
    if isinstance(value, dict):
        return sorted(value.items()) if isinstance(value, Names) else list(value.items())
    if value is not None and not isinstance(value, list):
        raise UsageError(f"template: range: expected a list or a map, got a {type(value).__name__}")
    return list(enumerate(value or ()))


def _text(value: Any) -> str:
    if value is None:
        return "<no value>"
    return value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))  # as Go's


def _index(value: Any, *keys: Any) -> Any:
    """Entries of entries; of a map with people's own keys, the empty string where there is none."""
    for key in keys:
        if isinstance(value, list):
            if not isinstance(key, int) or not 0 <= key < len(value):
                raise UsageError(f"template: index: there is no {key!r} in a list of {len(value)}")
            value = value[key]
        else:
            found = _entry(value, key)
            value = "" if found is None else found
    return value


def _join(values: Any, separator: Any) -> str:
    if not isinstance(values, list | None) or not isinstance(separator, str):
        raise UsageError("template: join: expected a list and a string", hint='{{join .Env ","}}')
    return separator.join(map(_text, values or ()))


def _len(value: Any) -> int:
    if not isinstance(value, str | list | dict | None):
        raise UsageError(
            f"template: len: expected a list, a map or a string, got a {type(value).__name__}"
        )
    return len(value.encode(errors="surrogatepass") if isinstance(value, str) else value or ())


def _eq(value: Any, *others: Any) -> bool:
    """Whether a value is one of the others; what is not there is the empty string, and true is not 1."""
    key, *keys = (("", str) if one is None else (one, type(one)) for one in (value, *others))
    return key in keys


def _and(*values: Any) -> Any:
    """The first that is empty, or the last; as Go's."""
    return next((value for value in values if not value), values[-1])


def _or(*values: Any) -> Any:
    """The first that is not empty, or the last; as Go's."""
    return next((value for value in values if value), values[-1])


def _println(*values: Any) -> str:
    return " ".join(map(_text, values)) + "\n"


def _printf(form: Any, *values: Any) -> str:
    """Fill the verbs of a form in their order; each takes a value, but `%%`."""
    left = deque(values)

    def filled(found: re.Match[str]) -> str:
        verb = found[1]
        if verb == "%":
            return "%"
        if verb not in _VERBS or not left:
            raise UsageError(
                f"template: printf: {form!r:.60} is not supported with {len(values)} values",
                hint=f"its verbs are %{' %'.join(_VERBS)} %%, one a value",
            )
        return _VERBS[verb](left.popleft())

    text = _VERB.sub(filled, _text(form))
    if left:
        raise UsageError(f"template: printf: {form!r:.60} does not take {len(values)} values")
    return text


_VERBS: dict[str, Callable[[Any], str]] = {"s": _text, "v": _text, "d": _text, "q": _json}

_FUNCTIONS: dict[str, tuple[Callable[..., Any], int, float]] = {
    "and": (_and, 1, math.inf),
    "eq": (_eq, 2, math.inf),
    "index": (_index, 1, math.inf),
    "join": (_join, 2, 2),
    "json": (_json, 1, 1),
    "len": (_len, 1, 1),
    "lower": (lambda value: _text(value).lower(), 1, 1),
    "ne": (lambda value, other: not _eq(value, other), 2, 2),
    "not": (lambda value: not value, 1, 1),
    "or": (_or, 1, math.inf),
    "printf": (_printf, 1, math.inf),
    "println": (_println, 0, math.inf),
    "upper": (lambda value: _text(value).upper(), 1, 1),
}
"""Each function, with the least and the most arguments it takes."""
