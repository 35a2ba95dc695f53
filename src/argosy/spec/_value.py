"""What values share: they are equal if their fields are, and show them.

A dataclass has such methods written and compiled for each class when its module is loaded, which for a short command
is a seventh of its time; these are written once. Use with `eq=False, repr=False`.
"""

from __future__ import annotations

from typing import Any


class Value:
    """The base of a frozen dataclass with slots.

    Example:
        >>> import dataclasses
        >>> @dataclasses.dataclass(frozen=True, slots=True, eq=False, repr=False)
        ... class Point(Value):
        ...     x: int
        ...     y: int
        >>> Point(1, 2), Point(1, 2) == Point(1, 2), Point(1, 2) in {Point(1, 2)}
        (Point(x=1, y=2), True, True)
    """

    __slots__ = ()
    __dataclass_fields__: dict[str, Any]

    def __eq__(self, other: object) -> bool:
        """Whether the other is of the same class and has equal fields."""
        if other.__class__ is not self.__class__:
            return NotImplemented
        return all(
            getattr(self, name) == getattr(other, name) for name in self.__dataclass_fields__
        )

    def __hash__(self) -> int:
        """That of the fields."""
        return hash(tuple([getattr(self, name) for name in self.__dataclass_fields__]))

    def __repr__(self) -> str:
        """The fields, but for those that are not to be shown."""
        fields = self.__dataclass_fields__.items()
        shown = [f"{name}={getattr(self, name)!r}" for name, field in fields if field.repr]
        return f"{self.__class__.__qualname__}({', '.join(shown)})"
