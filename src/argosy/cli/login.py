"""`argosy login|logout` and `argosy auth …`: credentials."""

from __future__ import annotations

import dataclasses
import sys

import click

from argosy.cli import connections, failure, remotes
from argosy.cli.options import heed_https, json_option, typed, typed_registry
from argosy.cli.output import document, table
from argosy.errors import ArgosyError, NotFoundError, UsageError
from argosy.remote.credentials import IDENTITY_USER, INLINE, Credential, CredentialStore, Step
from argosy.remote.registry import Registry
from argosy.spec.reference import DOCKER_HUB, Reference

_MAX_SECRET = 64 * 1024
_NONE = "credentials not found in native keychain"
"""What a credential helper says where it has none; Docker knows it by these words."""


def _store(name: str) -> CredentialStore:
    given = {"authfile": remotes.settings(click.get_current_context()).get("authfile")}
    return remotes.store(given, name)


def _secret(prompted: str | None, from_stdin: bool, what: str) -> str:
    if prompted is not None and from_stdin:
        raise UsageError(f"the {what} is given twice")
    if from_stdin:
        try:
            return sys.stdin.buffer.read(_MAX_SECRET).decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise UsageError(f"--{what.replace(' ', '-')}-stdin: not UTF-8") from None
    if prompted is not None:
        return prompted
    if not sys.stdin.isatty():
        raise UsageError(f"no {what}", hint=f"pipe it in with --{what.replace(' ', '-')}-stdin")
    return str(click.prompt(what.capitalize(), hide_input=True, err=True))


@connections.wanted
@click.command()
@click.argument("registry", default=DOCKER_HUB)
@click.option("-u", "--username", metavar="NAME", help="The user name.")
@click.option(
    "-p", "--password", metavar="PASSWORD", help="The password; better use --password-stdin."
)
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin.")
@click.option(
    "--identity-token",
    metavar="TOKEN",
    help="An identity token instead of a user name and password.",
)
@click.option("--identity-token-stdin", is_flag=True, help="Read the identity token from stdin.")
@click.option("--get-login", is_flag=True, help="Only print the user name that is logged in.")
@click.option("--no-check", is_flag=True, help="Keep the credentials without trying them.")
def login(
    registry: str,
    username: str | None,
    password: str | None,
    password_stdin: bool,
    identity_token: str | None,
    identity_token_stdin: bool,
    get_login: bool,
    no_check: bool,
) -> None:
    """Log in to a registry, or to a namespace in one: try credentials and keep them.

    They go to the first file of containers-auth.json(5), or into the credential helper that it names.

    \b
    Examples:
      argosy login registry.example -u ada --password-stdin < password
      argosy login --authfile ~/.docker/config.json docker.io
      argosy login registry.example/team -u robot
    """
    host, name = typed_registry(registry)
    store = _store(host)
    if get_login:
        found = store.lookup(host, name)
        if found is None:
            raise NotFoundError(f"not logged in to {registry}")
        known = found.credential
        print(known.username or (IDENTITY_USER if known.identity_token else ""))
        return
    if identity_token is not None or identity_token_stdin:
        token = _secret(identity_token, identity_token_stdin, "identity token")
        credential = Credential(username=username or "", identity_token=token)
    else:
        if username is None and (password_stdin or not sys.stdin.isatty()):
            raise UsageError("no user name", hint="give it with --username")
        user = username or str(click.prompt("Username", err=True))
        credential = Credential.of(user, _secret(password, password_stdin, "password"))
    if not no_check:
        _check(host, credential)
    overruled = store.inline(host, name)
    place = store.login(host, credential, name=name)
    print(f"logged in to {registry}, kept in {place}", file=sys.stderr)
    if overruled:
        _warn(registry)


def _check(host: str, credential: Credential) -> None:
    given = {**remotes.settings(click.get_current_context()), "no_creds": True}
    given = {k: v for k, v in given.items() if k not in ("creds", "registry_token")}
    plain = remotes.options(given, host)
    store = CredentialStore((), given={host: credential})
    with Registry(host, dataclasses.replace(plain, credentials=store)) as made:
        made.ping(introduce=True)


@connections.wanted
@click.command()
@click.argument("registry", required=False)
@click.option("-a", "--all", "every", is_flag=True, help="Log out of every registry.")
def logout(registry: str | None, every: bool) -> int:
    """Forget the credentials of a registry, in every file and helper that has them.

    A file or helper that fails is told, and the others forget them; then the exit code is that failure's.

    \b
    Examples:
      argosy logout registry.example
      argosy logout --all
    """
    if every == bool(registry):
        raise UsageError("name a registry, or say --all")
    store, lost = _store(""), _Lost()
    if not every:
        _forget(store, str(registry), lost)
        return lost.told()
    for text in sorted({*store.keys(lost=lost.add)}):
        try:
            _forget(store, text, lost)
        except NotFoundError:
            pass  # it went with another name of the registry, or a helper for it has nothing
        except UsageError as exc:
            lost.add(exc)
    return lost.told()


def _forget(store: CredentialStore, text: str, lost: _Lost) -> None:
    host, name = typed_registry(text)
    overruled = None
    try:
        overruled = store.inline(host, name)
    except ArgosyError as exc:
        lost.add(exc)
    try:
        for place in store.logout(host, name=name, lost=lost.add):
            print(f"logged out of {text} in {place}", file=sys.stderr)
    finally:
        if overruled:
            _warn(text)


def _warn(text: str) -> None:
    """Tell of credentials that no log-in or log-out changes."""
    told = f"{INLINE} has credentials for {text}, and is asked before all files"
    print(f"warning: {told}", file=sys.stderr)


class _Lost:
    """Failures of files and helpers, told once each when the others have been asked."""

    def __init__(self) -> None:
        self._errors: dict[str, ArgosyError] = {}

    def add(self, error: ArgosyError) -> None:
        """Keep one for the end."""
        self._errors.setdefault(str(error), error)

    def told(self) -> int:
        """Tell them; returns the exit code: the first one's."""
        return next(iter([failure.report(error) for error in self._errors.values()]), 0)


@connections.wanted
@click.command()
@click.argument("registry", required=False)
@click.option("--explain", is_flag=True, help="Show every place that is asked, in its order.")
@json_option
def ls(registry: str | None, explain: bool, as_json: bool) -> int:
    """List the registries there are credentials for; or explain where one registry's come from.

    A file or helper that fails is told, and the others are listed; then the exit code is that failure's.

    \b
    Examples:
      argosy auth ls
      argosy auth ls --explain registry.example/team/app
    """
    if explain:
        _explain(registry, as_json)
        return 0
    lost = _Lost()
    known = _store("").entries(lost=lost.add)
    entries = [e for e in known if registry is None or registry in e.key]
    if as_json:
        document(
            [
                {"registry": e.key, "username": e.username, "place": e.place, "helper": e.via}
                for e in entries
            ]
        )
    elif entries:
        rows = [(e.key, e.username or "-", e.via or e.place) for e in entries]
        table(rows, ("REGISTRY", "USER", "KEPT IN"))
    return lost.told()


def _explain(registry: str | None, as_json: bool) -> None:
    if registry is None:
        raise UsageError("--explain: name a registry or a repository")
    host, name = typed_registry(registry)
    given = remotes.settings(click.get_current_context())
    steps = remotes.store(given, host).explain(host, name)
    if as_json:
        document([{"place": s.place, "outcome": s.outcome, "detail": s.detail} for s in steps])
        return
    for step in steps:
        print(_told(step))
    if not any(step.outcome in {"found", "unreadable"} for step in steps):
        print(f"no credentials: {registry} is asked as anybody")


def _told(step: Step) -> str:
    words = {
        "absent": "is not there",
        "none": "has nothing for it",
        "not asked": "is not asked any more",
    }
    detail = f": {step.detail}" if step.detail else ""
    return f"{step.place} {words.get(step.outcome, step.outcome)}{detail}"


@connections.wanted
@click.command()
@click.argument("registry", required=False)
def get(registry: str | None) -> None:
    """Print the credentials for a registry, or for a repository in it, as JSON with `Username` and `Secret`.

    It speaks as credential helpers do: without REGISTRY it reads one from stdin, the user of an identity token is
    <token>, and where there are none it prints the sentence that clients expect, and exits with 2.

    \b
    Examples:
      argosy auth get registry.example
      echo registry.example | argosy auth get
    """
    text = registry
    if text is None:
        text = sys.stdin.buffer.readline(_MAX_SECRET).decode(errors="replace").strip()
    host, name = typed_registry(text)
    found = _store(host).lookup(host, name)
    secret = found and (found.credential.identity_token or found.credential.password)
    if not found or not secret:
        print(_NONE)
        raise NotFoundError(f"no credentials for {text}")
    user = IDENTITY_USER if found.credential.identity_token else found.credential.username
    document({"Username": user, "Secret": secret})


@connections.wanted
@click.command()
@click.argument("repository")
@click.option("--push", is_flag=True, help="A token to push with, too.")
@click.option(
    "-m",
    "--mount",
    metavar="REPOSITORY",
    multiple=True,
    help="Also to pull from this repository; repeatable.",
)
@click.option("-H", "--header-form", is_flag=True, help="Print the whole Authorization header.")
def token(repository: str, push: bool, mount: tuple[str, ...], header_form: bool) -> None:
    """Print the token a registry gives for a repository.

    \b
    Examples:
      argosy auth token alpine
      curl -H "$(argosy auth token -H alpine)" https://registry-1.docker.io/v2/library/alpine/tags/list
    """
    reference = typed(Reference.parse, repository)
    heed_https(repository, reference.registry)
    made = remotes.registry(click.get_current_context(), reference.registry)
    scopes = [f"repository:{reference.name}:{'pull,push' if push else 'pull'}"]
    scopes += [f"repository:{name}:pull" for name in mount]
    value = made.authorization(*scopes)
    if not value:
        raise NotFoundError(f"{reference.registry} asks for no token")
    print(f"Authorization: {value}" if header_form else value.partition(" ")[2])
