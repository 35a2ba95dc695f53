"""`argosy completion`: the shell's completion script, and the answers it asks for.

A script hands over the command line up to the cursor and gets the completions, one a line: the word as it shall stand
there, a tab, and its help. What ends in `:`, `/` or `=` goes on, and gets no space after it.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import click

from argosy import locate
from argosy.errors import ArgosyError

VARIABLE = "_ARGOSY_COMPLETE"
"""The variable in which a script says which shell asks; the line is in `COMP_LINE`."""

_SCRIPTS = {
    "bash": r"""
_argosy() {
    mapfile -t COMPREPLY < <(
        _ARGOSY_COMPLETE=bash COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" "$1" 2>/dev/null)
    COMPREPLY=("${COMPREPLY[@]%%$'\t'*}")
    if [[ ${COMPREPLY-} == *[:/=] ]]; then compopt -o nospace; fi
}
complete -o nosort -F _argosy argosy
""",
    "zsh": r"""#compdef argosy
_argosy() {
    local line; local -a values shown open_values open_shown
    for line in "${(@f)$(_ARGOSY_COMPLETE=zsh COMP_LINE="${(j: :)words[1,CURRENT-1]} $QIPREFIX$PREFIX" \
            "$words[1]" 2>/dev/null)}"; do
        if [[ -z $line ]]; then continue
        elif [[ ${line%%$'\t'*} == *[:/=] ]]; then
            open_values+=("${line%%$'\t'*}"); open_shown+=("${line/$'\t'/  }")
        else
            values+=("${line%%$'\t'*}"); shown+=("${line/$'\t'/  }")
        fi
    done
    local -a how=(-U -Q -V argosy -l)
    (( $#open_values )) && compadd $how -S '' -d open_shown -a open_values
    (( $#values )) && compadd $how -d shown -a values
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _argosy "$@"; else compdef _argosy argosy; fi
""",
    "fish": r"""
function __argosy
    _ARGOSY_COMPLETE=fish COMP_LINE=(commandline -cp | string collect) argosy 2>/dev/null
end
complete -c argosy -f -k -a '(__argosy)'
""",
}


@click.command()
@click.argument("shell", type=click.Choice([*_SCRIPTS]))
def command(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Examples:
      source <(argosy completion bash)
      argosy completion fish > ~/.config/fish/completions/argosy.fish
    """
    print(_SCRIPTS[shell].strip())


def answer(root: click.Command) -> None:
    """Print what can stand where the cursor is."""
    shell, wordbreaks = os.environ[VARIABLE], os.environ.get("COMP_WORDBREAKS", "")
    typed = _typed(os.environ.get("COMP_LINE", ""))
    bare = shell != "fish" and not typed.quoted
    # bash puts what it gets after the last of these characters
    breaks = [typed.word.rfind(char) + 1 for char in wordbreaks] if bare else []
    for value, told in _completions(root, typed):
        # A line is a completion: such names are typed by hand.
        if re.search(r"[\x00-\x1f\x7f]", value):
            continue
        word = value[max(breaks, default=0) :]
        line = f"{_escaped(word) if bare else word}\t{told}\n"
        sys.stdout.buffer.write(os.fsencode(line))


class _Typed(NamedTuple):
    words: list[str]
    word: str
    quoted: bool


def _typed(line: str) -> _Typed:
    """The words before the cursor, and the one it is in: perhaps none yet, or one whose quote is still open."""
    reader: Any = shlex.shlex(line, posix=True)  # says where it stopped, which its types do not
    reader.whitespace_split, reader.commenters = True, ""
    words: list[str] = []
    try:
        words.extend(reader)
    except ValueError:
        return _Typed(words[1:], reader.token or "", reader.state in ("'", '"'))
    if line[-1:].isspace() and not line.endswith("\\ "):
        words.append("")
    return _Typed(words[1:-1], words[-1] if len(words) > 1 else "", quoted=False)


def _escaped(word: str) -> str:
    """A word as bash and zsh read it back; a tilde in front stays one."""
    return re.sub(r"([^\w@%+=:,./~-])", r"\\\1", word)


def _completions(root: click.Command, typed: _Typed) -> Iterator[tuple[str, str]]:
    finder = importlib.import_module("click.shell_completion").ShellComplete(root, {}, "argosy", "")
    option = re.match("--[^=]+=", typed.word)
    before = option[0] if option else ""
    for item in finder.get_completions(list(typed.words), typed.word):
        if item.type == "plain":
            yield before + item.value, " ".join((item.help or "").split())
        else:
            for value in _KINDS[item.type](typed.word[len(before) :]):
                yield before + value, ""


def _files(typed: str, *, folders: bool = False) -> Iterator[str]:
    """The files that begin so, and the directories, with a slash."""
    start = os.path.basename(typed)
    above = typed[: len(typed) - len(start)]
    with contextlib.suppress(OSError), os.scandir(os.path.expanduser(above) or ".") as found:
        for entry in sorted(found, key=lambda entry: entry.name):
            if not entry.name.startswith(start) or (entry.name[0] == "." and not start):
                continue
            if entry.is_dir():
                yield f"{above}{entry.name}/"
            elif not folders:
                yield above + entry.name


def _folders(typed: str) -> Iterator[str]:
    return _files(typed, folders=True)


def _tags(typed: str) -> Iterator[str]:
    """A layout's directory with each of its tags that begin so."""
    folder, colon, start = typed.partition(":")
    if not colon or not folder:
        return
    with (
        contextlib.suppress(ArgosyError),
        locate.source(locate.Location(transport="oci", path=folder)) as layout,
    ):
        yield from (f"{folder}:{tag}" for tag in layout.tags() if tag.startswith(start))


def _places(typed: str) -> Iterator[str]:
    """The kinds of places, the files and directories that are of a kind, and the tags of layouts; never a registry's:
    whoever presses tab asks nobody over a network.
    """
    kind, colon, path = typed.partition(":")
    if colon and kind in locate.LOCAL:
        found = _files(path, folders=not kind.endswith("-archive"))
        tags = _tags(path) if kind == "oci" else ()
        yield from (f"{kind}:{name}" for name in itertools.chain(found, tags))
    elif typed.startswith(("./", "../", "/", "~")):
        yield from itertools.chain(_files(typed), _tags(typed))
    else:
        starts = ("docker://", *(f"{kind}:" for kind in locate.LOCAL), "./")
        yield from (start for start in starts if start.startswith(typed))


def _files_and_places(typed: str) -> Iterator[str]:
    return itertools.chain(_files(typed), _places(typed))


_KINDS: Mapping[str, Callable[[str], Iterator[str]]] = {
    "file": _files,
    "dir": _folders,
    "place": _places,
    "file or place": _files_and_places,
}
"""What parameters ask a shell for → what there is of it."""
