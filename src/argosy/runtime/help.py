"""Help and version texts, in the shape that runc's have."""

from __future__ import annotations

from argosy._version import __version__
from argosy.runtime.options import FLAG, GLOBAL, VERBS
from argosy.runtime.state import SPEC_VERSION

_ABOUT = "Open Container Initiative runtime"


def version(program: str) -> str:
    """Three lines that clients parse: name, commit, specification."""
    return f"{program} version {__version__}\ncommit: {__version__}\nspec: {SPEC_VERSION}\n"


def _rows(table: dict[str, str]) -> str:
    shorts = {kind: name for name, kind in table.items() if kind in table}
    lines = []
    for name, kind in table.items():
        if kind in table:
            continue
        words = f"--{name}" + ("" if kind == FLAG else f" <{kind}>")
        lines.append(f"   {words}" + (f", -{shorts[name]}" if name in shorts else ""))
    return "\n".join(lines)


def overview(program: str) -> str:
    """``--help``."""
    width = max(map(len, VERBS)) + 3
    verbs = "\n".join(f"   {name:<{width}}{verb.about}" for name, verb in VERBS.items())
    return (
        f"NAME:\n   {program} - {_ABOUT}\n\n"
        f"USAGE:\n   {program} [global options] command [command options] [arguments...]\n\n"
        f"VERSION:\n   {__version__}\n\nCOMMANDS:\n{verbs}\n\nGLOBAL OPTIONS:\n{_rows(GLOBAL)}\n"
    )


def verb_help(program: str, name: str) -> str:
    """``VERB --help``."""
    verb = VERBS[name]
    return (
        f"NAME:\n   {program} {name} - {verb.about}\n\nUSAGE:\n   {program} {name} [command options] {verb.usage}\n\n"
        f"OPTIONS:\n{_rows(verb.options)}\n"
    )
