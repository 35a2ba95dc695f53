"""VIEWS: images, indexes and layers seen over a place, and new ones made from old.

    view, layerstream     Image, ImageIndex, Layer: lazy, immutable, the bytes always at hand
    draft                 where new content lives until `copy` takes it somewhere; large layers on disk
    new, derive, configure   from nothing; more layers, another base, another configuration      (windows)
    insert, walk          files of this machine as a layer
    convert, reproducible Docker ⇄ OCI, other compression, clamped times (order); `each` for whole indexes
    flatten               layers made into one
    indexes, edit         indexes made and changed; documents as a person edited them
    contents              the files of an image, read without unpacking it
    differences, efficiency, history, explain, validate   what an image is, and what is wrong with it
    pack, deliver         artifacts: files into one, and out of it again
    source, rpm           the sources an image was made from, as an image

Rules of this room:

1. A view is never changed. A function that changes something returns a new view, in a draft over the old one's place.
2. What did not change keeps its bytes; an unknown property is never lost.
3. Whatever changes a digest says so.
4. Layers are streams: none is held in memory, and none is trusted before it was read to its end.
"""
