"""Values: small frozen classes whose fields are all there is to them.

They are declared and used as frozen dataclasses with slots are, and `dataclasses.replace`, `fields` and `asdict` take
them. But for a dataclass its methods are written and compiled, and the class is made twice, when its module is loaded:
of a short command's start that was an eighth. Here the methods are written once, for all; and `dataclasses` itself,
which brings half of the compiler along, is loaded where something asks for it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

ABSENT: Any = type(
    "Absent", (), {"__doc__": "What stands where no value was given.", "__slots__": ()}
)()


class Field:
    """What a value's class says of one field: as `dataclasses.Field`, of which these names are."""

    __slots__ = ("default", "default_factory", "metadata", "repr")

    def __init__(self, default: Any, default_factory: Any, metadata: Any, repr: bool) -> None:  # noqa: A002
        self.default = default
        self.default_factory = default_factory
        self.metadata = metadata
        self.repr = repr


_NO_METADATA: Mapping[str, Any] = MappingProxyType({})


def field(
    *,
    default: Any = ABSENT,
    default_factory: Any = ABSENT,
    metadata: Mapping[str, Any] = _NO_METADATA,
    repr: bool = True,  # noqa: A002 - the name it has in `dataclasses`
) -> Any:
    """A field of which more is to be said than its type and default, as `dataclasses.field`.

    Args:
        default: The value where none is given; without it and `default_factory` the field must be given.
        default_factory: Makes that value, for each instance a new one.
        metadata: What others want to know of the field.
        repr: Whether it is shown in the value's `repr`.

    Example:
        >>> class Login(Value):
        ...     user: str
        ...     password: str = field(default="", repr=False)
        >>> Login("jane", "secret")
        Login(user='jane')
    """
    return Field(default, default_factory, metadata, repr)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class _Kind(type):
    """What makes such a class of what its body says."""

    def __new__(
        mcls, name: str, bases: tuple[type, ...], body: dict[str, Any], *, kw_only: bool = False
    ) -> _Kind:
        fields: dict[str, Any] = {}
        for attribute, kind in body.get("__annotations__", {}).items():
            if not kind.startswith("ClassVar"):
                said = body.pop(attribute, ABSENT)
                if type(said).__module__ == "dataclasses":  # it would be the default itself
                    raise TypeError(f"{name}.{attribute}: expected a field of this module")
                fields[attribute] = said if isinstance(said, Field) else field(default=said)
        named = tuple(fields)
        made = {**body, "__slots__": named, "__match_args__": () if kw_only else named}
        cls: Any = super().__new__(mcls, name, bases, made)
        cls._fields = fields
        cls._plan = tuple(
            [(n, cls.__dict__[n].__set__, f.default, f.default_factory) for n, f in fields.items()]
        )
        cls._ordered = cls.__match_args__
        return cls  # type: ignore[no-any-return]

    @property
    def __signature__(cls) -> Any:
        """How it is called, for `help` and whoever completes what is typed."""
        inspect: Any = importlib.import_module("inspect")
        owner: Any = cls
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        made = []
        for name, said in owner._fields.items():
            default = said.default if said.default_factory is ABSENT else ...
            made.append(
                inspect.Parameter(
                    name,
                    kind if owner._ordered else inspect.Parameter.KEYWORD_ONLY,
                    default=inspect.Parameter.empty if default is ABSENT else default,
                    annotation=owner.__annotations__[name],
                )
            )
        return inspect.Signature(made)


class _DataclassFields:
    """What `dataclasses` asks a class for, made when it asks."""

    def __get__(self, instance: object, owner: Any) -> dict[str, Any]:
        # kept under another name, and never a base's: put in place of this, that of `Value` would be everybody's
        if "_table" not in owner.__dict__:
            made: Any = importlib.import_module("dataclasses")
            # with a docstring, for without one it would be given a signature, at the price of twenty classes
            body = {"__doc__": "A twin.", "__annotations__": owner.__annotations__}
            for name, said in owner._fields.items():
                asked = {part: getattr(said, part) for part in Field.__slots__}
                given = {part: what for part, what in asked.items() if what is not ABSENT}
                body[name] = made.field(**given)
            twin = made.dataclass(init=False, repr=False, eq=False)(type("", (), body))
            owner._table = twin.__dataclass_fields__
        return owner._table  # type: ignore[no-any-return]


class Value(metaclass=_Kind):
    """The base of a value. `kw_only=True` behind it in the class's head: its fields are given by name alone.

    Example:
        >>> class Point(Value):
        ...     x: int
        ...     y: int = 0
        >>> Point(1, y=2), Point(1) == Point(1, 0), Point(1, 2) in {Point(1, 2)}
        (Point(x=1, y=2), True, True)
    """

    __dataclass_fields__ = _DataclassFields()
    _fields: ClassVar[dict[str, Any]]
    _plan: ClassVar[tuple[tuple[str, Callable[[object, object], None], Any, Any], ...]]
    _ordered: ClassVar[tuple[str, ...]]

    def __init__(self, *args: Any, **given: Any) -> None:
        if args:
            given = self._named(args, given)
        for name, put, default, factory in self._plan:
            if name in given:
                put(self, given.pop(name))
            elif default is not ABSENT:
                put(self, default)
            elif factory is not ABSENT:
                put(self, factory())
            else:
                raise TypeError(f"{type(self).__name__}() lacks {name}")
        if given:
            raise TypeError(f"{type(self).__name__}() has no {', '.join(given)}")
        self.__post_init__()

    def _named(self, args: tuple[Any, ...], given: dict[str, Any]) -> dict[str, Any]:
        names = self._ordered[: len(args)]
        if len(args) > len(names) or not given.keys().isdisjoint(names):
            raise TypeError(f"{type(self).__name__}() takes {', '.join(self._ordered)}, each once")
        return {**dict(zip(names, args, strict=True)), **given}

    def __post_init__(self) -> None:
        """Refuse what cannot be."""

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse: values do not change."""
        raise _frozen(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        """Refuse: values do not change."""
        raise _frozen(f"cannot delete field {name!r}")

    def __replace__(self, **changes: Any) -> Self:
        """As `dataclasses.replace`."""
        return replace(self, **changes)

    def __reduce__(self) -> tuple[Any, ...]:
        """For `copy` and `pickle`."""
        return _remade, (type(self), self._asdict())

    def _asdict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._fields}

    def __eq__(self, other: object) -> bool:
        """Whether the other is of the same class and has equal fields."""
        if other.__class__ is not self.__class__:
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self._fields)

    def __hash__(self) -> int:
        """That of the fields, but for those that hold tables or lists, which have none."""
        values = [getattr(self, name) for name in self._fields]
        return hash(tuple([value for value in values if not isinstance(value, (Mapping, list))]))

    def __repr__(self) -> str:
        """The fields, but for those that are not to be shown."""
        fields = self._fields.items()
        shown = [f"{name}={getattr(self, name)!r}" for name, field in fields if field.repr]
        return f"{self.__class__.__qualname__}({', '.join(shown)})"


V = TypeVar("V", bound=Value)


def replace(value: V, /, **changes: Any) -> V:
    """A value as this one but for these fields, as `dataclasses.replace`.

    Example:
        >>> class Point(Value):
        ...     x: int
        ...     y: int = 0
        >>> replace(Point(1, 2), x=3)
        Point(x=3, y=2)
    """
    return type(value)(**{**value._asdict(), **changes})


def _frozen(text: str) -> Exception:
    error: Exception = importlib.import_module("dataclasses").FrozenInstanceError(text)
    return error


def _remade(cls: type[Value], fields: dict[str, Any]) -> Value:
    return cls(**fields)
