"""The runtime's own error tree: one line each, in runc's wording where clients match it.

The room stands alone, so this tree does too; callers above translate it at their door.
"""

from __future__ import annotations


class Failure(Exception):  # noqa: N818 - the root; its leaves end in Error
    """Something the caller of the runtime is told in one line.

    Attributes:
        status: exit status of the command.
    """

    status = 1


class UsageError(Failure):
    """The command line is wrong."""


class ConfigError(Failure):
    """config.json asks for what the specification, this runtime or this kernel does not have.

    Attributes:
        detail: the property's path, if it is one property's, and what is wrong with it.
    """

    def __init__(self, where: str, why: str) -> None:
        self.detail = f"{where}: {why}" if where else why
        super().__init__(f"invalid configuration: {where}: {why}" if where else why)


class ExistsError(Failure):
    """A container with this ID exists."""

    def __init__(self) -> None:
        super().__init__("container with given ID already exists")


class UnknownError(Failure):
    """There is no container with this ID."""

    def __init__(self) -> None:
        super().__init__("container does not exist")


class StatusError(Failure):
    """The container is in a state that does not allow the operation."""


class HookError(Failure):
    """A hook failed."""


class StartError(Failure):
    """The container's process could not be set up or executed."""


class ExecError(StartError):
    """execve(2) of the program failed, after everything was set up: the line is all there is to say."""

    status = 255


def describe(error: BaseException) -> str:
    """One line for any exception: the step's note first, the cause last."""
    notes = ": ".join(reversed(getattr(error, "__notes__", ())))
    if isinstance(error, OSError):
        name = error.filename
        shown = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
        syscall = getattr(error, "syscall", None)
        cause = (error.strerror or str(error)).lower()
        parts = [str(part) for part in (syscall, shown, cause) if part]
        text = (" ".join(parts[:-1]) + ": " if parts[:-1] else "") + parts[-1]
    elif isinstance(error, Failure):
        text = str(error)
    else:
        text = f"internal error: {type(error).__name__}: {error} (at {_place(error)})"
    return f"{notes}: {text}" if notes else text


def _place(error: BaseException) -> str:
    """Where an unforeseen exception came from, without opening any source file."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}" if trace is not None else "unknown"
