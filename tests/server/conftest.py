"""What the tests of the registry share."""

from tests.server.client import server
from tests.server.fixtures import objects, postgresql
from tests.server.receivers import receiver

__all__ = ["objects", "postgresql", "receiver", "server"]
