"""`kill -9` under load loses nothing that was acknowledged."""

from __future__ import annotations

import http.client
import os
import random
import threading
from pathlib import Path

from argosy.spec.digest import Digest
from tests.server.client import image
from tests.server.process import Process

KIND = "application/vnd.oci.image.manifest.v1+json"


class Pusher(threading.Thread):
    """Pushes images, in every form, until the registry goes away; remembers what it was promised."""

    def __init__(self, server: Process, number: int) -> None:
        super().__init__()
        self.server, self.name_, self.random = server, f"r{number}", random.Random(number)
        self.blobs: dict[Digest, bytes] = {}
        self.tags: dict[str, bytes] = {}
        self.deleted: set[str] = set()
        self.enough = threading.Event()

    def run(self) -> None:
        connection = self.server.connect()
        try:
            self._blob(connection, b"{}")
            number = 0
            while True:
                self._image(connection, f"t{number}")
                number += 1
                if number == 8:
                    self.enough.set()
        except (OSError, http.client.HTTPException):
            self.enough.set()
        finally:
            connection.close()

    def _ask(
        self, connection: http.client.HTTPConnection, method: str, target: str, body: bytes
    ) -> tuple[int, str]:
        connection.request(method, target, body, {"content-type": KIND})
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.getheader("location") or ""

    def _blob(self, connection: http.client.HTTPConnection, data: bytes) -> Digest:
        digest = Digest.of(data)
        base = f"/v2/{self.name_}/blobs/uploads/"
        if self.random.random() < 0.3:
            status, _ = self._ask(connection, "POST", f"{base}?digest={digest}", data)
        else:
            _, location = self._ask(connection, "POST", base, b"")
            rest = data
            if self.random.random() < 0.5:
                _, location = self._ask(connection, "PATCH", location, data)
                rest = b""
            status, _ = self._ask(connection, "PUT", f"{location}?digest={digest}", rest)
        assert status == 201
        self.blobs[digest] = data
        return digest

    def _image(self, connection: http.client.HTTPConnection, tag: str) -> None:
        layers = [os.urandom(self.random.choice((10, 5000, 300_000))) for _ in range(2)]
        raw = image(*[self._blob(connection, layer) for layer in layers])
        target = f"/v2/{self.name_}/manifests/{tag}"
        assert self._ask(connection, "PUT", target, raw)[0] == 201
        self.tags[tag] = raw
        if self.random.random() < 0.2:
            self.tags.pop(tag)  # from here to the answer either is right
            assert self._ask(connection, "DELETE", target, b"")[0] == 202
            self.deleted.add(tag)


def test_kill_nine_under_load_loses_no_acknowledged_push(tmp_path: Path) -> None:
    for _ in range(2):
        with Process(str(tmp_path)) as server:
            pushers = [Pusher(server, number) for number in range(4)]
            for pusher in pushers:
                pusher.start()
            for pusher in pushers:
                assert pusher.enough.wait(60)
            server.kill()
            for pusher in pushers:
                pusher.join()
        with Process(str(tmp_path)) as server:
            for pusher in pushers:
                assert len(pusher.blobs) > 3
                for digest, data in pusher.blobs.items():
                    found = server.ask("GET", f"/v2/{pusher.name_}/blobs/{digest}")
                    assert (found[0], found[2]) == (200, data)
                for tag, raw in pusher.tags.items():
                    assert server.ask("GET", f"/v2/{pusher.name_}/manifests/{tag}")[2] == raw
                for tag in pusher.deleted:
                    assert server.ask("GET", f"/v2/{pusher.name_}/manifests/{tag}")[0] == 404


def test_collecting_with_no_grace_to_speak_of_loses_no_image(tmp_path: Path) -> None:
    """The soak that found the lost pushes of others: a collector that is always at their heels."""
    with Process(str(tmp_path), grace=3.0) as server:
        pushers = [Pusher(server, number) for number in range(3)]
        for pusher in pushers:
            pusher.start()
        for pusher in pushers:
            assert pusher.enough.wait(60)
        for pusher in pushers:
            for raw in list(pusher.tags.values())[:8]:
                found = server.ask("GET", f"/v2/{pusher.name_}/manifests/{Digest.of(raw)}")
                assert found[2] == raw
        server.kill()
        for pusher in pushers:
            pusher.join()
