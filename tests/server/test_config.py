"""Configuration: what is taken, what is refused and how it is said."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any, get_args, get_type_hints

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

import argosy.server
from argosy.errors import InvalidConfigError, NotFoundError, StorageError
from argosy.server import config
from argosy.server.metadata import outbox
from argosy.server.settings import EventType, Settings

FULL = """
data: /srv/registry
listen:
  host: 0.0.0.0
  port: 443
  tls: {certificate: tls.crt, key: tls.key}
  trusted_proxies: [10.0.0.0/8, "::1/128"]
storage:
  type: s3
  s3: {bucket: blobs, endpoint: "http://127.0.0.1:9000", access_key: a, secret_key: hush, redirect: true}
metadata:
  type: postgresql
  postgresql: {dsn: "postgresql://argosy:hush@db/argosy", pool: 4}
access:
  htpasswd: users
  policy: policy.yaml
  issuers:
    - {issuer: "https://ci.example", audience: registry, jwks: "https://ci.example/jwks"}
events:
  sinks:
    - {name: ci, url: "https://ci.example/hook", secret: hush, types: [manifest.pushed]}
cache:
  - {prefix: hub, registry: docker.io, password: hush}
gc: {grace_seconds: 3600}
"""


def write(directory: pathlib.Path, text: str) -> str:
    path = directory / "registry.yaml"
    path.write_text(text)
    return str(path)


def test_every_part_of_a_file_is_taken(tmp_path: pathlib.Path) -> None:
    settings = config.load(write(tmp_path, FULL))
    assert settings.listen.tls is not None
    assert settings.listen.trusted_proxies == ("10.0.0.0/8", "::1/128")
    assert settings.storage.s3 is not None
    assert settings.storage.s3.redirect
    assert settings.access.issuers[0].algorithms == ("EdDSA", "ES256", "RS256")
    assert settings.gc.grace_seconds == 3600.0
    assert isinstance(settings.gc.grace_seconds, float)


def test_no_secret_is_shown_by_a_repr(tmp_path: pathlib.Path) -> None:
    assert "hush" not in repr(config.load(write(tmp_path, FULL)))


def test_an_empty_file_is_the_defaults(tmp_path: pathlib.Path) -> None:
    assert config.load(write(tmp_path, "# nothing\n")) == Settings() == config.load()


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("listen:\n  prot: 1", ":2: listen.prot: no such property", "did you mean port?"),
        ("admin: true", ":1: admin: no such property", "expected one of"),
        ("listen: {port: 65536}", ":1: listen.port: 65536 is greater than the maximum", None),
        ("listen: {port: '5000'}", ":1: listen.port: '5000' is not of type 'integer'", None),
        (
            "listen: {public_url: registry.example}",
            ":1: listen.public_url: 'registry.example' does not match '^https?://'",
            None,
        ),
        (
            "storage: {s3: {bucket: abc, endpoint: 's3.example:9000'}}",
            ":1: storage.s3.endpoint: 's3.example:9000' does not match '^https?://'",
            None,
        ),
        ("listen: {port: 5000.0}", ":1: listen.port: 5000.0 is not of type 'integer'", None),
        ("gc: {grace_seconds: .nan}", ":1: gc.grace_seconds: nan is not of type 'number'", None),
        ('data: "a\\0b"', ":1: data: 'a\\x00b' is not of type 'string'", None),
        ('data: "a\\ud800"', ":1: data: 'a\\ud800' is not of type 'string'", None),
        ("listen:\n  tls: {certificate: a, key: b, kye: c}", ":2: listen.tls.kye: no such", "did you mean key?"),
        ("listen: {tls: {key: b}}", "'certificate' is a required property", None),
        ("storage: {type: floppy}", "storage.type: 'floppy' is not one of", None),
        ("storage: {type: s3}", "storage.s3: expected it", None),
        ("metadata: {type: postgresql}", "metadata.postgresql: expected it", None),
        ("a: 1\na: 2", ":2: 'a' is there twice", None),
        ("listen: {trusted_proxies: [10.0.0.1/8]}", "listen.trusted_proxies: 10.0.0.1/8 has host bits", None),
        ("cache: [{prefix: a, registry: b}, {prefix: a, registry: c}]", "cache: two entries", None),
        ("cache: [{prefix: Hub/, registry: docker.io}]", "cache.0.prefix: name 'Hub/': expected", None),
        ("cache: [{prefix: hub, registry: 'https://docker.io'}]", "cache.0.registry: registry 'https", None),
        ("cache: [{prefix: hub, registry: index.docker.io}]", "cache.0.registry: expected 'docker.io'", None),
        (
            "cache: [{prefix: a, registry: b, token_hosts: ['https://c/t']}]",
            "cache.0.token_hosts: registry 'https",
            None,
        ),
        ("events: {sinks: [{name: a, url: 'http://'}]}", "events.sinks.0.url: expected a host", None),
        ("events: {sinks: [{name: a, url: 'http://a:b/'}]}", "events.sinks.0.url: expected a host", None),
        ("events: {sinks: [{name: a, url: 'http://a:b@c/'}]}", "events.sinks.0.url: expected no user", None),
        ("events: {sinks: [{name: a, url: 'http://a/h k'}]}", "events.sinks.0.url: expected printable ASCII", None),
        ("events: {sinks: [{name: a, url: 'http://a/hö'}]}", "events.sinks.0.url: expected printable ASCII", None),
        ("listen: {public_url: 'https://[::1'}", "listen.public_url: expected a host", None),
        ("listen: {public_url: 'https://日本'}", "listen.public_url: expected printable ASCII", None),
        ("listen: {public_url: 'https://a\"b'}", "listen.public_url: expected printable ASCII", None),
        ("storage: {s3: {bucket: abc, endpoint: 'http://[x'}}", "storage.s3.endpoint: expected a host", None),
        ("access: {issuers: [{issuer: a, audience: b, jwks: 'https://[::1'}]}", "access.issuers.0.jwks: expected a host", None),
        ("access: {tokens: {service: 'a\"b'}}", ":1: access.tokens.service: 'a\"b' does not match", None),
        ('access: {tokens: {service: "a\\n"}}', ":1: access.tokens.service: 'a\\n' does not match", None),
        ("events: {sinks: [{name: a, url: 'http://a', types: [push]}]}", "'push' is not one of", None),
        ("access: {issuers: [{issuer: a, audience: b, jwks: c, algorithms: [HS256]}]}", "'HS256' is not one of", None),
        ("x: &a [1]\ny: *a", ":2: aliases are not taken", None),
        ("listen: [", ":1: ", None),
        ("- 1", "document: ", None),
        ("data: !!python/object/apply:os.system [id]", "could not determine a constructor", None),
        ("limits: {manifest_bytes: 1048576}", "is less than the minimum of 4194304", None),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(
    tmp_path: pathlib.Path, text: str, message: str, hint: str | None
) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        config.load(write(tmp_path, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    if hint:
        assert hint in (caught.value.hint or "")


def test_a_file_that_is_not_there_or_too_large_is_said(tmp_path: pathlib.Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        config.load(str(tmp_path / "none"))
    with pytest.raises(StorageError, match="is a directory"):
        config.load(str(tmp_path))
    with pytest.raises(InvalidConfigError, match="over the limit"):
        config.load(write(tmp_path, "#" * (config.MAX_FILE_BYTES + 1)))


def test_the_environment_wins_over_the_file(tmp_path: pathlib.Path) -> None:
    environment = {
        "ARGOSY_REGISTRY_LISTEN_PORT": "0",
        "ARGOSY_REGISTRY_GC_ENABLED": "false",
        "ARGOSY_REGISTRY_LISTEN_TRUSTED_PROXIES": "[127.0.0.0/8]",
        "ARGOSY_REGISTRY_METADATA_POSTGRESQL_DSN": "host=/run",
        "ARGOSY_REGISTRY_ACCESS_HTPASSWD": "",
        "HOME": "/root",
    }
    settings = config.load(write(tmp_path, FULL), environment)
    assert settings.listen.port == 0
    assert not settings.gc.enabled
    assert settings.listen.trusted_proxies == ("127.0.0.0/8",)
    assert settings.metadata.postgresql is not None
    assert (settings.metadata.postgresql.dsn, settings.metadata.postgresql.pool) == ("host=/run", 4)
    assert settings.access.htpasswd is None


def test_a_variable_that_holds_text_is_taken_as_it_is() -> None:
    said = {
        "ARGOSY_REGISTRY_SECRET": "0123456789",
        "ARGOSY_REGISTRY_STORAGE_S3_BUCKET": "123",
        "ARGOSY_REGISTRY_STORAGE_S3_SECRET_KEY": "%abc@def",
        "ARGOSY_REGISTRY_METADATA_POSTGRESQL_DSN": "password='a #b: c' host=/run",
        "ARGOSY_REGISTRY_ACCESS_ANONYMOUS": "none",
    }
    settings = config.load(environment=said)
    assert settings.storage.s3 is not None
    assert settings.metadata.postgresql is not None
    assert list(said.values()) == [
        settings.secret,
        settings.storage.s3.bucket,
        settings.storage.s3.secret_key,
        settings.metadata.postgresql.dsn,
        settings.access.anonymous,
    ]


@pytest.mark.parametrize(
    "text",
    [
        "secret: 4711",
        "events: {sinks: [{name: a, url: 4711}]}",
        "secret: [4711]",
        "metadata: {postgresql: {dsn: 4711}}",
        "storage: {s3: {bucket: abc, secret_key: 4711}}",
        "events: {sinks: [{name: a, url: 'http://a', secret: 4711}]}",
        "cache: [{prefix: a, registry: b, password: {x: 4711}}]",
    ],
)
def test_a_secret_that_is_wrong_is_not_shown(tmp_path: pathlib.Path, text: str) -> None:
    path = write(tmp_path, text)
    (problem,) = config.check_config(path)
    assert "what is there is not of type 'string'" in problem
    assert "4711" not in problem


def test_a_webhooks_url_is_not_shown_by_what_is_wrong_with_it(tmp_path: pathlib.Path) -> None:
    (problem,) = config.check_config(
        write(tmp_path, "events: {sinks: [{name: a, url: hooks.example/4711}]}")
    )
    assert "what is there does not match" in problem
    assert "4711" not in problem


def test_a_variable_nobody_reads_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match="ARGOSY_REGISTRY_LISTEN_PROT: no such") as caught:
        config.load(environment={"ARGOSY_REGISTRY_LISTEN_PROT": "1"})
    assert caught.value.hint == "did you mean ARGOSY_REGISTRY_LISTEN_PORT?"


def test_check_config_says_everything_at_once(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, "listen: {prot: 1, port: x}\nstorage: {type: floppy}\n")
    problems = config.check_config(path)
    assert len(problems) == 3
    assert all(problem.startswith(f"{path}:") for problem in problems)
    both = write(
        tmp_path, "storage: {type: s3}\ncache: [{prefix: A/, registry: 'https://docker.io'}]"
    )
    assert len(config.check_config(both)) == 3
    assert config.check_config(write(tmp_path, "log: {level: debug}\n")) == []


def test_the_published_schema_is_the_one_that_is_used() -> None:
    folder = pathlib.Path(argosy.server.__file__).parent
    assert (folder / "schema.json").read_text() == config.published()
    jsonschema.Draft202012Validator.check_schema(config.schema())


def test_every_setting_has_a_description_and_its_default_fits_the_schema() -> None:
    def walk(shape: dict[str, Any]) -> None:
        for name, one in shape.get("properties", {}).items():
            assert one["description"], name
            if "default" in one and one["default"] is not None:
                jsonschema.validate(one["default"], one)
            walk(one)

    walk(config.schema())


def test_every_scalar_has_its_variable_and_no_two_share_one() -> None:
    names = config.environment_names()
    assert names["ARGOSY_REGISTRY_STORAGE_S3_SECRET_KEY"] == ("storage", "s3", "secret_key")
    assert len(set(names.values())) == len(names)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["listen", "port", "tls", "gc", "x"]), inner, max_size=3
            )
        ),
    )
)
def test_any_document_is_taken_or_refused_in_one_line(document: object) -> None:
    said = ""
    try:
        config.decode(document)
    except InvalidConfigError as error:
        said = str(error)
    assert said.isprintable() or "\n" not in said


def test_settings_are_frozen_all_the_way_down() -> None:
    def check(cls: Any) -> None:
        assert cls.__dataclass_params__.frozen
        for field in dataclasses.fields(cls):
            default = getattr(Settings(), field.name, None) if cls is Settings else None
            assert not isinstance(default, list | dict | set)
            hint = get_type_hints(cls)[field.name]
            if dataclasses.is_dataclass(hint):
                check(hint)

    check(Settings)


def test_the_schema_is_json() -> None:
    assert json.loads(config.published())["additionalProperties"] is False


def test_every_kind_of_event_can_be_asked_for() -> None:
    kinds = {
        value
        for name, value in vars(outbox).items()
        if name.startswith(("BLOB_", "CONTENT_", "MANIFEST_", "TAG_"))
    }
    assert set(get_args(EventType)) == kinds
