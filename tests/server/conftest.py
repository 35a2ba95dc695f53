"""What the tests of the registry share."""

from tests.server.client import server
from tests.server.fixtures import objects, postgresql
from tests.server.mirrors import mirror, upstreams
from tests.server.receivers import receiver

__all__ = ["mirror", "objects", "postgresql", "receiver", "server", "upstreams"]
