"""What the tests of the registry share."""

from tests.server.fixtures import objects, postgresql

__all__ = ["objects", "postgresql"]
