"""An image as a picture: the graph of its descriptors, as a terminal tree, DOT, Mermaid or SVG.

Arrows go the way descriptors point: an index to its manifests, a manifest to its config and layers, a referrer to its
subject.
"""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable, Iterator

from argosy.content import graph
from argosy.content.protocols import Source, readable
from argosy.content.workers import each
from argosy.errors import ArgosyError, LimitExceededError
from argosy.spec import mediatypes
from argosy.spec.annotations import TITLE
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import AnyManifest, Index, Manifest

__all__ = ["RENDERERS", "Drawing", "Edge", "Vertex", "draw"]

MAX_VERTICES = 5_000
"""The most descriptors one picture shows."""


@dataclasses.dataclass(frozen=True, slots=True)
class Vertex:
    """A descriptor in the picture. `kind` is `index`, `manifest`, `config`, `layer`, `artifact` or `missing`."""

    descriptor: Descriptor
    kind: str
    lines: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Edge:
    """An arrow: the property `label` of the document `tail` holds the descriptor `head`."""

    tail: Digest
    head: Digest
    label: str


@dataclasses.dataclass(slots=True)
class Drawing:
    """The graph of one image: its root, everything below, and the referrers beside.

    Example:
        >>> from argosy.content.memory import MemoryStore
        >>> from argosy.testing import random
        >>> store = MemoryStore()
        >>> picture = draw(store, random.image(store, 1, layers=1), "v1")
        >>> [edge.label for edge in picture.edges]
        ['config', 'layers[0]']
    """

    root: Digest
    title: str
    vertices: dict[Digest, Vertex] = dataclasses.field(default_factory=dict)
    edges: list[Edge] = dataclasses.field(default_factory=list)

    def below(self, digest: Digest) -> list[tuple[str, Digest]]:
        """What hangs below a vertex in a tree: what it holds, then what refers to it."""
        held = [(e.label, e.head) for e in self.edges if e.tail == digest and e.label != "subject"]
        refer = [
            ("referrer", e.tail) for e in self.edges if e.head == digest and e.label == "subject"
        ]
        return held + refer


def draw(
    source: Source, root: Descriptor, title: str = "", *, referrers: bool = True, jobs: int = 1
) -> Drawing:
    """Walk what a root holds; what is missing is drawn as missing.

    Args:
        source: Where it is.
        root: Where to begin.
        title: What to write above it, such as the tag.
        referrers: Ask for the manifests that refer to each manifest, too.
        jobs: How many configs and layers to look for at a time.

    Raises:
        LimitExceededError: more than 5000 descriptors.
    """
    drawing = Drawing(root.digest, title)
    leaves: list[Descriptor] = []
    todo = [root]
    while todo:
        desc = todo.pop()
        if desc.digest in drawing.vertices:
            continue
        if len(drawing.vertices) >= MAX_VERTICES:
            raise LimitExceededError(f"more than {MAX_VERTICES} descriptors below {root.digest}")
        if not desc.is_manifest():
            drawing.vertices[desc.digest] = _leaf(desc, there=True)
            leaves.append(desc)
            continue
        manifest = _read(source, desc)
        drawing.vertices[desc.digest] = _vertex(desc, manifest)
        if manifest is not None:
            todo.extend(reversed(list(_connect(drawing, desc, manifest))))
        if referrers:
            todo.extend(source.referrers(desc))
    found = each(lambda desc: desc.data is not None or readable(source, desc), leaves, jobs=jobs)
    for desc, there in zip(leaves, found, strict=True):
        drawing.vertices[desc.digest] = _leaf(desc, there=there)
    drawing.edges = [
        e for e in drawing.edges if e.head in drawing.vertices and e.tail in drawing.vertices
    ]
    return drawing


def _read(source: Source, desc: Descriptor) -> AnyManifest | None:
    try:
        return graph.read_manifest(source, desc)
    except ArgosyError:
        return None


def _connect(drawing: Drawing, desc: Descriptor, manifest: AnyManifest) -> Iterator[Descriptor]:
    for label, child in manifest.named():
        drawing.edges.append(Edge(desc.digest, child.digest, label))
        yield child
    if manifest.subject is not None:
        drawing.edges.append(Edge(desc.digest, manifest.subject.digest, "subject"))


def _vertex(desc: Descriptor, manifest: AnyManifest | None) -> Vertex:
    if manifest is None:
        return Vertex(desc, "missing", ("missing", short(desc.digest)))
    if isinstance(manifest, Index):
        return Vertex(
            desc, "index", (f"index, {len(manifest.manifests)} manifests", short(desc.digest))
        )
    if isinstance(manifest, Manifest) and manifest.config.media_type in mediatypes.CONFIGS:
        where = [str(desc.platform)] if desc.platform else []
        return Vertex(desc, "manifest", (" ".join(["manifest", *where]), short(desc.digest)))
    return Vertex(desc, "artifact", (f"artifact {manifest.kind}", short(desc.digest)))


def _leaf(desc: Descriptor, *, there: bool) -> Vertex:
    if not there:
        return Vertex(desc, "missing", (f"missing {_brief(desc.media_type)}", short(desc.digest)))
    kind = "config" if desc.media_type in (*mediatypes.CONFIGS, mediatypes.OCI_EMPTY) else "layer"
    name = desc.annotations.get(TITLE) or _brief(desc.media_type)
    return Vertex(desc, kind, (f"{kind} {name}", f"{short(desc.digest)}, {desc.size} bytes"))


def _brief(media_type: str) -> str:
    """The telling end of a media type."""
    for prefix in ("application/vnd.oci.image.", "application/vnd.oci.", "application/vnd.docker."):
        media_type = media_type.removeprefix(prefix)
    return media_type


def short(digest: Digest) -> str:
    """A digest for people: the algorithm and twelve digits."""
    return f"{digest.algorithm}:{digest.encoded[:12]}"


def tree(drawing: Drawing) -> str:
    """Lines for a terminal. What hangs in two places is drawn once and named again."""
    lines = [drawing.title] if drawing.title else []
    shown: set[Digest] = set()
    stack: list[tuple[Digest, str, str, str]] = [(drawing.root, "", "", "")]
    while stack:
        digest, label, first, rest = stack.pop()
        vertex = drawing.vertices[digest]
        again = digest in shown
        shown.add(digest)
        named = f"{label}: " if label else ""
        lines.append(f"{first}{named}{', '.join(vertex.lines)}{' (see above)' if again else ''}")
        children = [] if again else drawing.below(digest)
        for position, (name, child) in reversed(list(enumerate(children))):
            last = position == len(children) - 1
            stack.append(
                (child, name, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))
            )
    return "\n".join(lines) + "\n"


def dot(drawing: Drawing) -> str:
    """A graph for Graphviz."""
    lines = [
        "digraph image {",
        "  rankdir=LR;",
        '  node [shape=box, style="rounded,filled", fontname="sans-serif"];',
    ]
    names = _names(drawing)
    for digest, vertex in drawing.vertices.items():
        label = "\\n".join(_quoted(line) for line in vertex.lines)
        lines.append(f'  {names[digest]} [label="{label}", fillcolor="{_COLOURS[vertex.kind]}"];')
    for edge in drawing.edges:
        style = ', style="dashed"' if edge.label == "subject" else ""
        lines.append(f'  {names[edge.tail]} -> {names[edge.head]} [label="{edge.label}"{style}];')
    return "\n".join([*lines, "}"]) + "\n"


def mermaid(drawing: Drawing) -> str:
    """A flow chart for Mermaid, as Markdown viewers show it."""
    names = _names(drawing)
    lines = ["flowchart LR"]
    for digest, vertex in drawing.vertices.items():
        label = "<br>".join(html.escape(line).replace("#", "&num;") for line in vertex.lines)
        lines.append(f'  {names[digest]}["{label}"]:::{vertex.kind}')
    for edge in drawing.edges:
        arrow = "-.->" if edge.label == "subject" else "-->"
        lines.append(f'  {names[edge.tail]} {arrow}|"{edge.label}"| {names[edge.head]}')
    for kind, colour in _COLOURS.items():
        lines.append(f"  classDef {kind} fill:{colour},stroke:#555,color:#111;")
    return "\n".join(lines) + "\n"


_COLOURS = {
    "index": "#cfe2f3", "manifest": "#d9ead3", "config": "#fff2cc",
    "layer": "#eeeeee", "artifact": "#ead1dc", "missing": "#f4cccc",
}  # fmt: skip
_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 330, 46, 110, 16, 24


def svg(drawing: Drawing) -> str:
    """A picture that stands by itself: no script, no font, nothing fetched."""
    places = _places(drawing)
    columns = max(x for x, _ in places.values()) + 1
    rows = max(y for _, y in places.values()) + 1
    width = round(columns * (_WIDTH + _GAP_X) - _GAP_X + 2 * _MARGIN)
    height = round(rows * (_HEIGHT + _GAP_Y) - _GAP_Y + 2 * _MARGIN)
    body = [_svg_edge(e, places) for e in drawing.edges]
    body += [_svg_vertex(v, *_corner(places[d])) for d, v in drawing.vertices.items()]
    title = html.escape(drawing.title or drawing.root)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="13">\n<title>{title}</title>\n'
        '<defs><marker id="a" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
        'orient="auto"><path d="M0 0 8 4 0 8z" fill="#555"/></marker></defs>\n'
        f'<rect width="{width}" height="{height}" fill="#fff"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _corner(place: tuple[int, float]) -> tuple[float, float]:
    return _MARGIN + place[0] * (_WIDTH + _GAP_X), _MARGIN + place[1] * (_HEIGHT + _GAP_Y)


def _svg_vertex(vertex: Vertex, x: float, y: float) -> str:
    lines = "".join(
        f'<text x="{x + 12:g}" y="{y + 19 + 17 * i:g}">{html.escape(_clip(line))}</text>'
        for i, line in enumerate(vertex.lines)
    )
    return (
        f'<g><title>{html.escape(vertex.descriptor.digest)}</title><rect x="{x:g}" y="{y:g}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" rx="6" fill="{_COLOURS[vertex.kind]}" stroke="#555"/>{lines}</g>'
    )


def _clip(line: str, most: int = 46) -> str:
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _svg_edge(edge: Edge, places: dict[Digest, tuple[int, float]]) -> str:
    (x1, y1), (x2, y2) = _corner(places[edge.tail]), _corner(places[edge.head])
    back = edge.label == "subject"
    x1, x2 = (x1, x2 + _WIDTH) if back and x1 > x2 else (x1 + _WIDTH, x2)
    y1, y2 = y1 + _HEIGHT / 2, y2 + _HEIGHT / 2
    bend = (x2 - x1) / 2
    dash = ' stroke-dasharray="5 4"' if back else ""
    return (
        f'<path d="M{x1:g} {y1:g}C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g} {x2:g} {y2:g}" fill="none" '
        f'stroke="#555" marker-end="url(#a)"{dash}/>'
        f'<text x="{x2 - 8 if not back else x2 + 8:g}" y="{y2 - 5:g}" font-size="11" fill="#555" '
        f'text-anchor="{"end" if not back else "start"}">{html.escape(edge.label)}</text>'
    )


def _places(drawing: Drawing) -> dict[Digest, tuple[int, float]]:
    """A column by distance from the root, a row by the order of leaves; a parent stands amid its children."""
    places: dict[Digest, tuple[int, float]] = {}
    row = 0
    stack: list[tuple[Digest, int, bool]] = [(drawing.root, 0, False)]
    entered: set[Digest] = set()
    while stack:
        digest, column, leaving = stack.pop()
        children = [child for _, child in drawing.below(digest)]
        if leaving:
            placed = [places[c][1] for c in children if c in places]
            places[digest] = (column, (min(placed) + max(placed)) / 2 if placed else row)
            row += 0 if placed else 1
            continue
        if digest in entered:
            continue
        entered.add(digest)
        stack.append((digest, column, True))
        stack.extend((child, column + 1, False) for child in reversed(children))
    return places


def _names(drawing: Drawing) -> dict[Digest, str]:
    return {digest: f"n{number}" for number, digest in enumerate(drawing.vertices)}


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


RENDERERS: dict[str, Callable[[Drawing], str]] = {
    "tree": tree,
    "dot": dot,
    "mermaid": mermaid,
    "svg": svg,
}
"""Each form of a picture, by its name."""
