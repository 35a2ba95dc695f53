"""A tag moved only from what it named when it was read: of two who change it at once, none undoes the other."""

from __future__ import annotations

from collections.abc import Collection

from argosy.errors import ConflictError, NotFoundError
from argosy.remote import flows
from argosy.remote.wire import Flow
from argosy.spec import distribution
from argosy.spec._value import replace
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest


def replace_manifest(name: str, desc: Descriptor, raw: bytes, tag: str, old: Digest) -> Flow[bool]:
    """Store a manifest under a tag that names another one, as long as it does.

    The registry compares where it knows `If-Match`; where it does not, this is only sure of the moment before.

    Returns:
        Whether the registry took note of its `subject`.

    Raises:
        ConflictError: the tag names something else, or nothing; it is left alone.
    """
    yield from _check_named(name, tag, {old, desc.digest})
    request = flows.put_request(name, desc, raw, tag)
    only = {**request.headers, "If-Match": f'"{old}"'}
    response = yield replace(request, headers=only, statuses=(412,))
    if response.status == 412:  # or an answer was lost, and the request came twice
        found = yield from _check_named(name, tag, {old, desc.digest})
        if found == old:  # its entity tags are no digests
            response = yield request
    flows.check_stored(response.headers.get(distribution.CONTENT_DIGEST_HEADER), desc.digest)
    return bool(response.headers.get(distribution.SUBJECT_HEADER))


def _check_named(name: str, tag: str, expected: Collection[Digest]) -> Flow[Digest]:
    try:
        found = (yield from flows.resolve(name, tag)).digest
    except NotFoundError:
        found = None
    if found is None or found not in expected:
        raise ConflictError(
            f"{name}:{tag} was changed meanwhile: it names {found or 'nothing'} now",
            hint="nothing was written; do it again from what is there now",
        )
    return found
