"""`argosy edit`: an editor, what it leaves, and what becomes of that where it cannot be stored."""

from __future__ import annotations

import io
import pathlib
import shutil
import sys
import tempfile

import pytest

from argosy.cli import making
from argosy.layout.store import LayoutStore
from argosy.spec.descriptor import Descriptor
from argosy.spec.manifest import Manifest
from argosy.spec.mediatypes import OCI_CONFIG, OCI_MANIFEST
from tests.cli.conftest import Run
from tests.cli.test_images import opened


def test_edit_runs_the_editor_and_refuses_what_is_not_valid(
    argosy: Run, layout: pathlib.Path, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    script = tmp_path / "editor"
    script.write_text(
        f"#!{sys.executable}\nimport sys\np=sys.argv[1]; s=open(p).read()\nopen(p,'w').write(eval(open({str(tmp_path / 'change')!r}).read()))\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("EDITOR", str(script))
    (tmp_path / "change").write_text("s.replace('SEED=1', 'SEED=2')")
    argosy("edit", "config", f"oci:{layout}:v1", "-t", "edited")
    assert opened(layout, "edited").config.execution.env == ("SEED=2",)
    (tmp_path / "change").write_text("s.replace('linux', '')[:40]")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    told = argosy("edit", "config", f"oci:{layout}:v1", "-t", "broken", code=1).err
    (kept,) = tmp_path.glob("argosy-*/config.json")
    assert f"(what was written is kept in {kept})" in told
    assert len(kept.read_text()) == 40
    shutil.rmtree(kept.parent)
    (tmp_path / "change").write_text(
        's.replace(\'"config"\', \'"annotations": {"a": "b"}, "config"\', 1)'
    )
    argosy("edit", "manifest", f"oci:{layout}:v1", "-t", "noted")
    assert opened(layout, "noted").manifest.annotations == {"a": "b"}
    monkeypatch.setenv("EDITOR", "false")
    argosy("edit", "config", f"oci:{layout}:v1", code=64)
    assert set(argosy("ls", f"oci:{layout}").out.split()) == {"edited", "multi", "noted", "v1"}
    assert not [*tmp_path.glob("argosy-*")]


@pytest.mark.parametrize(
    "raw", [b'{"os":' + b"[" * 200_000, b'{"os":"linux","os":"plan9"}'], ids=["deep", "twice"]
)
def test_edit_shows_what_can_be_read_in_two_ways_as_it_is(
    argosy: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, raw: bytes
) -> None:
    store = LayoutStore.create(str(tmp_path / "l"))
    desc = Descriptor.of(OCI_CONFIG, raw)
    store.push(desc, io.BytesIO(raw))
    made = Manifest(config=desc).encode()
    store.push(Descriptor.of(OCI_MANIFEST, made), io.BytesIO(made), tags=["v1"])
    monkeypatch.setenv("EDITOR", f"cmp -s {store.blobs.path_of(desc.digest)}")
    argosy("edit", "config", f"oci:{tmp_path}/l:v1")


def test_an_interrupt_keeps_what_was_written(
    argosy: Run, layout: pathlib.Path, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    def put(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(making, "put", put)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("EDITOR", "sed -i s/SEED=1/SEED=2/")
    told = argosy("edit", "config", f"oci:{layout}:v1", code=130).err
    (kept,) = tmp_path.glob("argosy-*/config.json")
    assert told == f"argosy: what was written is kept in {kept}\nargosy: interrupted\n"
    assert "SEED=2" in kept.read_text()


def test_without_an_editor_the_document_is_read_from_stdin(
    argosy: Run, layout: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDITOR", raising=False)
    monkeypatch.delenv("VISUAL", raising=False)
    place = f"oci:{layout}:v1"
    changed = argosy("config", place).out.replace("SEED=1", "SEED=2").encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(changed)))
    argosy("edit", "config", place, "-t", "edited")
    assert opened(layout, "edited").config.execution.env == ("SEED=2",)
    assert argosy("config", f"oci:{layout}:edited").out.encode() == changed
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    assert "stdin is empty" in argosy("edit", "config", place, "-t", "none", code=64).err
