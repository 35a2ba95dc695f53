"""Files of credentials for tests."""

from __future__ import annotations

import base64
import json
import pathlib

from argosy.remote.credentials import Credential, CredentialStore

ADA = Credential(username="ada", password="pass:word")


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def write(path: pathlib.Path, document: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return str(path)


def user(store: CredentialStore, registry: str, name: str = "") -> str | None:
    found = store.lookup(registry, name)
    return found.credential.username if found else None
