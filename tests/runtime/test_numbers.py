"""Numbers as people type them: what is none is refused in one line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from argosy.runtime.cli import parse_signal
from argosy.runtime.errors import Failure, UsageError
from argosy.runtime.events import seconds
from argosy.runtime.options import VERBS, parse
from argosy.runtime.validate import cpulist


@pytest.mark.parametrize("text", ["²", "٣", "--5", "9" * 5000])
@pytest.mark.parametrize(
    "read",
    [
        parse_signal,
        lambda text: cpulist(text, "where"),
        lambda text: parse([f"--preserve-fds={text}"], VERBS["exec"].options, stops=True),
    ],
)
def test_what_is_no_number_is_refused(read: Callable[[str], object], text: str) -> None:
    with pytest.raises(Failure):
        read(text)


@pytest.mark.parametrize("text", ["²s", "٣", "--5", "1.2.3s", ".", ".s", "s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="invalid duration"):
        seconds(text)
