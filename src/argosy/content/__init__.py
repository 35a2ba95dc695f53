"""Places that hold content, and moving content between them.

Rules of this room:

1. A descriptor is the only address. A tag is turned into one by `resolve`.
2. Nothing unverified leaves `fetch`; nothing unverified survives `push`.
3. Children arrive before parents, the root last, its tags last of all: a place never holds a tag to half an image.
4. Capabilities beyond `Source` and `Target` (`Deleter`, `Mounter`) are protocols of their own, asked for once.
"""
