"""The registry as a state machine: whatever is asked in whatever order, what it promised holds.

Never a 201 that cannot be pulled, never a live blob that is collected, never a dead one that outlives its grace.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from argosy.server.settings import Collection, Settings
from argosy.spec.digest import Digest
from tests.server import invariants
from tests.server.client import Clock, Server, image, index, subject

GRACE = 1000.0
NAMES = st.sampled_from(["a", "a/b", "c"])
CONTENTS = st.sampled_from([b"", b"{}", b"one", b"two" * 100, b"three" * 1000])
TAGS = st.sampled_from(["latest", "v1", "V1"])
ALGORITHMS = st.sampled_from(["sha256", "sha512"])


@dataclasses.dataclass
class Lease:
    """Until when a blob is surely there, and after when it is surely not, while no manifest refers to it."""

    data: bytes
    sure: float
    dead: float


@dataclasses.dataclass
class Session:
    name: str
    location: str
    data: bytes = b""


class RegistryMachine(RuleBasedStateMachine):
    """The registry beside a model of it that is too simple to be wrong."""

    @initialize()
    def open(self) -> None:
        place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = tempfile.TemporaryDirectory(dir=place)
        self.clock = Clock()
        self.settings = Settings(gc=Collection(grace_seconds=GRACE, trash_seconds=GRACE))
        self.server = self._opened()
        self.blobs: dict[tuple[str, str], Lease] = {}
        self.manifests: dict[tuple[str, str], bytes] = {}
        self.needs: dict[tuple[str, str], frozenset[str]] = {}
        self.tags: dict[tuple[str, str], str] = {}
        self.sessions: list[Session] = []

    def _opened(self) -> Server:
        return Server(self.folder.name, settings=self.settings, clock=self.clock)

    def teardown(self) -> None:
        if hasattr(self, "server"):
            invariants.check(self.server)
            self.server.close()
            self.folder.cleanup()

    # -- what is known ----------------------------------------------------------------------------

    def referenced(self, name: str, digest: str) -> bool:
        return any(of == name and digest in parts for (of, _), parts in self.needs.items())

    def surely_there(self, name: str, digest: str) -> bool:
        lease = self.blobs.get((name, digest))
        if lease is None:
            return False
        return self.referenced(name, digest) or lease.sure > self.clock.now

    def promised(self, name: str, data: bytes, digest: str, *, twice: bool = False) -> None:
        now = self.clock.now
        lease = self.blobs.setdefault((name, digest), Lease(data, 0, 0))
        lease.sure = max(lease.sure, now + GRACE)
        lease.dead = max(lease.dead, now + (2 if twice else 1) * GRACE)

    # -- blobs ------------------------------------------------------------------------------------

    @rule(name=NAMES, data=CONTENTS, algorithm=ALGORITHMS, single=st.booleans())
    def push(self, name: str, data: bytes, algorithm: str, single: bool) -> None:
        digest = Digest.of(data, algorithm)
        if single:
            target = f"/v2/{name}/blobs/uploads/?digest={digest}"
            assert self.server.ask("POST", target, data).status == 201
        else:
            self.server.push_blob(name, data, algorithm)
        self.promised(name, data, digest)

    @rule(name=NAMES, data=CONTENTS)
    def push_under_a_wrong_digest(self, name: str, data: bytes) -> None:
        target = f"/v2/{name}/blobs/uploads/?digest={Digest.of(b'wrong')}"
        assert self.server.ask("POST", target, data).code == "DIGEST_INVALID"

    @rule(name=NAMES, data=CONTENTS)
    def head(self, name: str, data: bytes) -> None:
        digest = Digest.of(data)
        status = self.server.ask("HEAD", f"/v2/{name}/blobs/{digest}").status
        if status == 200:
            assert (name, digest) in self.blobs
            self.promised(name, data, digest, twice=True)
        else:
            assert not self.surely_there(name, digest)

    @rule(name=NAMES, source=st.one_of(st.none(), NAMES), data=CONTENTS)
    def mount(self, name: str, source: str | None, data: bytes) -> None:
        digest = Digest.of(data)
        sources = [source] if source else [of for of, one in self.blobs if one == digest]
        query = f"?mount={digest}" + (f"&from={source}" if source else "")
        answer = self.server.ask("POST", f"/v2/{name}/blobs/uploads/{query}", b"")
        if answer.status == 201:
            assert any((one, digest) in self.blobs for one in sources)
            self.promised(name, data, digest)
        else:
            assert answer.status == 202
            assert not any(self.surely_there(one, digest) for one in sources)

    @rule(name=NAMES, data=CONTENTS)
    def delete_blob(self, name: str, data: bytes) -> None:
        digest = Digest.of(data)
        status = self.server.ask("DELETE", f"/v2/{name}/blobs/{digest}").status
        assert (status == 405) == self.referenced(name, digest)
        if status == 404:
            assert not self.surely_there(name, digest)
        if status == 202:
            del self.blobs[name, digest]

    # -- sessions ---------------------------------------------------------------------------------

    @rule(name=NAMES)
    def begin(self, name: str) -> None:
        answer = self.server.ask("POST", f"/v2/{name}/blobs/uploads/", b"")
        self.sessions.append(Session(name, answer.location))

    @precondition(lambda self: self.sessions)
    @rule(pick=st.integers(0, 99), data=st.sampled_from([b"x", b"yz", b"three" * 1000]))
    def append(self, pick: int, data: bytes) -> None:
        session = self.sessions[pick % len(self.sessions)]
        start = len(session.data)
        wrong = {"content-range": f"{start + 1}-{start + len(data)}"}
        assert self.server.ask("PATCH", session.location, data, wrong).status == 416
        right = {"content-range": f"{start}-{start + len(data) - 1}"}
        answer = self.server.ask("PATCH", session.location, data, right)
        session.data += data
        assert (answer.status, answer.header("range")) == (202, f"0-{len(session.data) - 1}")
        session.location = answer.location

    @precondition(lambda self: self.sessions)
    @rule(pick=st.integers(0, 99), algorithm=ALGORITHMS, rest=st.sampled_from([b"", b"end"]))
    def complete(self, pick: int, algorithm: str, rest: bytes) -> None:
        session = self.sessions.pop(pick % len(self.sessions))
        data = session.data + rest
        digest = Digest.of(data, algorithm)
        answer = self.server.ask("PUT", f"{session.location}?digest={digest}", rest)
        assert answer.status == 201
        self.promised(session.name, data, digest)

    @precondition(lambda self: self.sessions)
    @rule(pick=st.integers(0, 99))
    def cancel(self, pick: int) -> None:
        session = self.sessions.pop(pick % len(self.sessions))
        assert self.server.ask("DELETE", session.location).status == 204
        assert self.server.ask("GET", session.location).status == 404

    # -- manifests --------------------------------------------------------------------------------

    @rule(
        name=NAMES,
        layers=st.lists(CONTENTS, max_size=2),
        tag=st.one_of(st.none(), TAGS),
        of=st.integers(0, 9),
    )
    def push_image(self, name: str, layers: list[bytes], tag: str | None, of: int) -> None:
        here = sorted(digest for one, digest in self.manifests if one == name)
        more: dict[str, Any] = {}
        if here and of < 5:
            more["subject"] = subject(Digest(here[of % len(here)]))
        digests = [Digest.of(layer) for layer in layers]
        raw = image(*digests, **more)
        needed = frozenset([*digests, Digest.of(b"{}")])
        answer = self.server.put_manifest(name, raw, tag or Digest.of(raw))
        if answer.status == 201:
            self._stored(name, raw, needed, tag)
        else:
            assert answer.code == "MANIFEST_BLOB_UNKNOWN"
            assert not all(self.surely_there(name, digest) for digest in needed)

    @rule(name=NAMES, tag=st.one_of(st.none(), TAGS), count=st.integers(0, 3))
    def push_index(self, name: str, tag: str | None, count: int) -> None:
        here = sorted(Digest(digest) for one, digest in self.manifests if one == name)[:count]
        raw = index(*here)
        assert self.server.put_manifest(name, raw, tag or Digest.of(raw)).status == 201
        self._stored(name, raw, frozenset(), tag)

    def _stored(self, name: str, raw: bytes, needed: frozenset[str], tag: str | None) -> None:
        digest = Digest.of(raw)
        assert all((name, one) in self.blobs for one in needed)
        self.manifests[name, digest] = raw
        self.needs[name, digest] = needed
        if tag is not None:
            self.tags[name, tag] = digest

    @rule(name=NAMES, tag=TAGS)
    def delete_tag(self, name: str, tag: str) -> None:
        status = self.server.ask("DELETE", f"/v2/{name}/manifests/{tag}").status
        assert status == (202 if self.tags.pop((name, tag), None) else 404)

    @precondition(lambda self: self.manifests)
    @rule(pick=st.integers(0, 99))
    def delete_manifest(self, pick: int) -> None:
        name, digest = sorted(self.manifests)[pick % len(self.manifests)]
        assert self.server.ask("DELETE", f"/v2/{name}/manifests/{digest}").status == 202
        del self.manifests[name, digest]
        self.tags = {k: v for k, v in self.tags.items() if (k[0], v) != (name, digest)}
        for blob in self.needs.pop((name, digest)):
            lease = self.blobs[name, blob]
            self.promised(name, lease.data, blob)

    # -- time -------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1, GRACE / 3, GRACE - 1, GRACE, GRACE + 1, 3 * GRACE]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def collect(self) -> None:
        assert self.server.run(self.server.upkeep.collect()).failed == 0
        for (name, digest), lease in list(self.blobs.items()):
            if not self.referenced(name, digest) and lease.dead < self.clock.now:
                assert self.server.ask("GET", f"/v2/{name}/blobs/{digest}").status == 404
                del self.blobs[name, digest]

    @rule()
    def compact_and_scrub(self) -> None:
        self.server.run(self.server.upkeep.compact())
        assert self.server.run(self.server.upkeep.scrub(older_than=0)).damaged == []

    @rule()
    def restart(self) -> None:
        self.server.close()
        self.server = self._opened()

    # -- what holds -------------------------------------------------------------------------------

    @invariant()
    def manifests_and_tags_are_there(self) -> None:
        if not hasattr(self, "server"):
            return
        for (name, digest), raw in self.manifests.items():
            assert self.server.ask("GET", f"/v2/{name}/manifests/{digest}").body == raw
        for name in ("a", "a/b", "c"):
            expected = sorted(tag for one, tag in self.tags if one == name)
            answer = self.server.ask("GET", f"/v2/{name}/tags/list")
            assert (answer.json()["tags"] if answer.status == 200 else []) == expected
        for (name, tag), digest in self.tags.items():
            answer = self.server.ask("HEAD", f"/v2/{name}/manifests/{tag}")
            assert answer.header("docker-content-digest") == digest

    @invariant()
    def blobs_are_there_as_long_as_promised(self) -> None:
        if not hasattr(self, "server"):
            return
        for (name, digest), lease in self.blobs.items():
            if self.surely_there(name, digest):
                answer = self.server.ask("GET", f"/v2/{name}/blobs/{digest}")
                assert (answer.status, answer.body) == (200, lease.data)

    @invariant()
    def referrers_are_those_that_say_so(self) -> None:
        if not hasattr(self, "server"):
            return
        for name, digest in list(self.manifests)[:3]:
            needle = f'"subject": {{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "{digest}"'
            expected = {
                one for (of, one), raw in self.manifests.items()
                if of == name and needle.encode() in raw
            }  # fmt: skip
            found = self.server.ask("GET", f"/v2/{name}/referrers/{digest}").json()["manifests"]
            assert {entry["digest"] for entry in found} == expected


TestRegistryMachine = RegistryMachine.TestCase
TestRegistryMachine.settings = settings(
    max_examples=int(os.environ.get("ARGOSY_MACHINE_EXAMPLES", "40")),
    stateful_step_count=40,
    suppress_health_check=list(HealthCheck),
)
