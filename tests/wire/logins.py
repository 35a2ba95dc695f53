"""Who logs in where a registry asks for it, and how."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from argosy.remote.credentials import Credential, CredentialStore
from argosy.remote.repository import Repository

Client = Callable[..., Repository]

BASIC = "Basic " + base64.b64encode(b"ada:secret").decode()
ADA = {"username": "ada", "password": "secret"}


def given(**fields: str) -> CredentialStore:
    return CredentialStore(given={"": Credential(**fields)})


def logged_in(client: Client, **more: Any) -> Repository:
    return client(credentials=given(**ADA), headers={"X-Wish": "1"}, **more)
