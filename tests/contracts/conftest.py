"""What the tests of the registry share."""

from tests.contracts.engines import engine
from tests.server.fixtures import objects, postgresql

__all__ = ["engine", "objects", "postgresql"]
