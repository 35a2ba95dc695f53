"""The reference of all commands, in Markdown, made from the commands themselves: `python -m argosy.cli.reference`.

The same commands give the same bytes, so that a test can say that `docs/reference.md` is stale.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator

import click

from argosy.cli import connections, failure
from argosy.cli.main import root
from argosy.cli.table import ALIASES, COMMANDS

__all__ = ["commands", "examples", "page"]

_HEAD = """\
# Reference

Every command of `argosy`. This page is made from the commands by `python -m argosy.cli.reference > docs/reference.md`;
it is not edited. `argosy COMMAND --help` shows the same on a terminal.

Data goes to stdout, progress and errors to stderr. `--json` prints JSON for machines. An error is one line, and a
line of advice where there is some; `ARGOSY_DEBUG=1` adds the traceback.

## Places

A command that takes a place takes every kind.

| place | what it is |
|---|---|
| `docker://registry/name:tag`, or just `registry/name:tag` | in a registry; `@digest` instead of a tag, or after it |
| `oci:directory:tag` | an OCI image layout |
| `oci-archive:file:tag` | the same in one tar file, compressed or not |
| `docker-archive:file:name:tag` | what `docker save` writes |
| `dir:directory` | one image as plain files |
| `./path`, `../path`, `/path` | whichever of these lies there; a tag, a digest or both may follow |

`oci:directory:@3` is the fourth entry of a layout, `oci:directory@sha256:…` what has that digest. `-` as the file of an
archive is stdin or stdout. Without a tag, `latest` is meant, or the only image there is. An archive that is written to
without a name holds that one image; in a layout, an image without a tag stands beside the others, unless it was made of
the only one there was.
"""

_EXITS = {
    0: "done",
    1: "failed; for `diff` and `check-base`: there is a difference",
    2: "not found; also a file that was to be read",
    3: "not allowed: no credentials, wrong ones, or too few rights; also those to a file",
    4: "verification failed: content is not what its digest or size says",
    5: "the registry limits the rate",
    failure.EXIT_USAGE: "wrong usage",
    failure.EXIT_DEFECT: "a defect of argosy",
    failure.EXIT_HUNG_UP: "ended by SIGHUP",
    failure.EXIT_INTERRUPTED: "interrupted",
    failure.EXIT_PIPE: "stdout was closed by its reader",
    failure.EXIT_TERMINATED: "ended by SIGTERM",
}
"""Every exit code and what it means; `tests/house` holds it against `failure`."""

_AFTER_EXITS = """\
`argosy run` and `argosy exec` exit with the code of the program in the container; 125 where argosy failed before it,
126 where the program cannot be run, 127 where there is none, 128 + N where signal N ended it.
"""

_ENVIRONMENT = {
    "REGISTRY_AUTH_FILE": "the file of credentials, as in containers-auth.json(5)",
    "DOCKER_AUTH_CONFIG": "credentials themselves, as JSON",
    "DOCKER_CONFIG": "the directory of Docker's `config.json`",
    "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY": "proxies (`http`, `https`, `socks5`), in capitals or not",
    "XDG_RUNTIME_DIR, XDG_CONFIG_HOME, XDG_DATA_HOME, XDG_STATE_HOME": "where credentials, configuration, images and "
    "unfinished uploads are",
    "CONTAINERS_REGISTRIES_CONF": "the file in the place of registries.conf(5)",
    "SSL_CERT_FILE, SSL_CERT_DIR": "the authorities that are trusted",
    "SOURCE_DATE_EPOCH": "the time that is written into images, in seconds since 1970",
    "VISUAL, EDITOR": "the editor of `argosy edit`",
    "ARGOSY_REGISTRY_…": "settings of `argosy serve`; see [running a registry](registry.md)",
    "ARGOSY_REGISTRY_CONFIG": "the configuration file of `argosy serve` and `argosy registry`",
    "ARGOSY_ROOT": "the directory of containers and of this machine's images",
    "ARGOSY_RUNTIME": "the runtime of `argosy run`",
    "ARGOSY_ROOTLESS": "`1`: act as somebody without root's powers, though root asks",
    "ARGOSY_PROGRESS": "as `--progress`",
    "ARGOSY_SHORT_NAMES": "`1`: a name without a registry is what registries.conf(5) says, not Docker Hub's",
    "ARGOSY_DEBUG": "print tracebacks",
}


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by its full name, in the table's order."""
    top = click.Context(root, info_name="argosy")
    for name, entry in COMMANDS.items():
        if not entry.module:
            continue
        found: click.Command | None = root
        for word in name.split():
            assert isinstance(found, click.Group)
            found = found.get_command(top, word)
        assert found is not None
        yield name, found


def examples(command: click.Command) -> list[str]:
    """The command lines that a command's help gives as examples."""
    return _help(command)[1]


def page() -> str:
    """The whole page."""
    return "\n".join(_parts()).rstrip("\n") + "\n"


def _parts() -> Iterator[str]:
    found = dict(commands())
    yield _HEAD
    yield from _table("Exit codes", "code", _EXITS)
    yield _AFTER_EXITS
    yield from _table("Environment", "variable", _ENVIRONMENT)
    yield from _connections()
    sections = dict.fromkeys(entry.section for entry in COMMANDS.values())
    names = {s: [n for n in found if COMMANDS[n].section == s] for s in sections}
    yield "## Commands\n"
    for section, listed in names.items():
        links = ", ".join(f"[{name}](#argosy-{name.replace(' ', '-')})" for name in listed)
        yield f"{section}: {links}\n"
    others = ", ".join(f"`{alias}` for `{name}`" for alias, name in sorted(ALIASES.items()))
    yield f"Other tools' names are understood: {others}.\n"
    for section, listed in names.items():
        yield f"## {section}\n"
        for name in listed:
            yield from _command(name, found[name])


def _table(title: str, column: str, rows: dict[int, str] | dict[str, str]) -> Iterator[str]:
    yield f"## {title}\n"
    yield f"| {column} | meaning |\n|---|---|"
    for key, meaning in rows.items():
        cell = ", ".join(f"`{part}`" for part in str(key).split(", "))
        yield f"| {cell} | {meaning} |"
    yield ""


def _connections() -> Iterator[str]:
    yield "## Talking to registries\n"
    yield (
        "Every command that may talk to a registry takes these; `--help-registry` lists them. Commands with two ends\n"
        "take each for one end too: `--src-creds`, `--dest-plain-http`. How credentials are found is told by\n"
        "`argosy auth ls --explain REGISTRY`. registries.conf(5) and certs.d are honoured;\n"
        "containerd's hosts.toml, `credential-helpers` of registries.conf, policy.json and registries.d are not: no\n"
        "signature is checked. A registry on this machine (localhost) is spoken to in http if it does not speak TLS.\n"
    )
    yield from _options(
        [(connections.left(setting), setting.help) for setting in connections.SETTINGS]
    )


def _command(name: str, command: click.Command) -> Iterator[str]:
    ctx = click.Context(command, info_name=f"argosy {name}")
    prose, found = _help(command)
    yield f"### argosy {name}\n"
    yield "```text\n" + " ".join([f"argosy {name}", *command.collect_usage_pieces(ctx)]) + "\n```\n"
    yield prose + "\n"
    given = {opt for p in command.params for opt in p.opts}
    shared = {f"--{setting.name}" for setting in connections.SETTINGS} | {"--help-registry"}
    records = [
        record
        for param in command.params
        if isinstance(param, click.Option)
        and ("--help-registry" not in given or not shared & set(param.opts))
        and (record := param.get_help_record(ctx)) is not None
    ]
    yield from _options(records)
    if "--help-registry" in given:
        ends = ", also with `--src-` and `--dest-`" if "--src-creds" in given else ""
        yield f"And the options for [talking to registries](#talking-to-registries){ends}.\n"
    if found:
        yield "```sh\n" + "\n".join(found) + "\n```\n"


def _options(records: list[tuple[str, str]]) -> Iterator[str]:
    if not records:
        return
    yield "| option | meaning |\n|---|---|"
    for left, text in records:
        yield f"| `{_cell(left)}` | {_cell(text)} |"
    yield ""


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def _help(command: click.Command) -> tuple[str, list[str]]:
    """What a command's help says, and its examples."""
    prose, found = [], []
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        lines = [line for line in paragraph.splitlines() if line.strip() != "\b"]
        if lines and lines[0].strip() in {"Example:", "Examples:"}:
            found += [line.strip() for line in lines[1:]]
        else:
            prose.append(" ".join(line.strip() for line in lines))
    return "\n\n".join(prose), found


if __name__ == "__main__":
    sys.stdout.write(page())
