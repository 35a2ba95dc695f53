from __future__ import annotations

import pytest

from argosy.image.configure import Changes
from argosy.image.derive import mutate
from argosy.image.history import as_dockerfile, instruction, steps
from argosy.spec.imageconfig import History
from tests.image.kit import file, image_of, tar_of


@pytest.mark.parametrize(
    ("recorded", "line"),
    [
        ('/bin/sh -c #(nop) CMD ["sh"]', 'CMD ["sh"]'),
        ("/bin/sh -c #(nop) ADD file:abc in / ", "ADD file:abc in /"),
        ("RUN /bin/sh -c apk add x # buildkit", "RUN apk add x"),
        ("|1 A=1 /bin/sh -c make", "RUN make"),
        ("RUN |1 A=1 /bin/sh -c make # buildkit", "RUN make"),
        ("COPY /a /b # buildkit", "COPY /a /b"),
        ("bazel build ...", "# bazel build ..."),
        ("one\ntwo", "# one"),
        ("", "# a layer that nothing was recorded of"),
    ],
)
def test_what_builders_record_reads_as_a_dockerfile(recorded: str, line: str) -> None:
    assert instruction(recorded) == line


def test_steps_have_the_sizes_of_their_layers() -> None:
    image = mutate(
        image_of(tar_of(file("a"))), Changes(user="x"), history=History(created_by="USER x")
    )
    layer, empty = steps(image)
    assert (layer.layer, layer.size) == (
        image.manifest.layers[0].digest,
        image.manifest.layers[0].size,
    )
    assert (empty.layer, empty.size, empty.instruction) == (None, 0, "USER x")


def test_a_dockerfile_ends_with_what_only_the_configuration_tells() -> None:
    image = image_of(tar_of(file("a")), env={"A": "1"}, user="ada", cmd=["sh", "-c"])
    assert list(as_dockerfile(image))[1:] == [
        "FROM scratch",
        "# layer 0",
        'ENV A="1"',
        "USER ada",
        'CMD ["sh", "-c"]',
    ]
