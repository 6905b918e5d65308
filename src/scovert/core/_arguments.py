"""Refusing arguments that nothing takes, with the nearest that there is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from functools import wraps
from typing import TypeVar

from scovert.core._words import counted

__all__ = ["check_known", "knows_its_arguments", "nearest"]

Class = TypeVar("Class", bound=type)


def check_known(
    where: str,
    given: Iterable[str] | None,
    known: Collection[str],
    more: Collection[str] = (),
) -> None:
    """Refuse names that are not among the `known` ones.

    Parameters
    ----------
    where
        What they were passed to, for the message.
    given
        Names that were passed.
    known
        Names that are taken, in the order in which to list them.
    more
        Names that are taken, too many to list: options of scvi-tools' trainer.

    Raises
    ------
    TypeError
        For a name that is not known; it says which comes nearest.
    """
    unknown = [name for name in given or [] if name not in known and name not in more]
    if unknown:
        guesses = [nearest(name, known) or nearest(name, more) for name in unknown]
        meant = "".join(f" Did you mean `{guess}`?" for guess in guesses if guess)
        takes = f"It takes {', '.join(f'`{name}`' for name in known)}" if known else ""
        takes += ", and the options of `scvi.train.Trainer`." if more else "." if takes else ""
        raise TypeError(
            f"`{where}` does not take {', '.join(f'`{name}`' for name in unknown)}.{meant} "
            f"{takes or 'It takes no such options.'}"
        )


def knows_its_arguments(*, options: str | None = None) -> Callable[[Class], Class]:
    """Let the public methods of a class refuse unknown arguments with the nearest known one.

    Methods with ``**options`` take the arguments of the method that `options` names, too. With
    other names after the two stars a method looks itself.
    """

    def decorate(cls: Class) -> Class:
        more = [] if options is None else _named(getattr(cls, options))
        for name, member in list(vars(cls).items()):
            if name.startswith("_") and name != "__init__":
                continue
            where = cls.__name__ if name == "__init__" else f"{cls.__name__}.{name}"
            if isinstance(member, classmethod):
                setattr(cls, name, classmethod(_checked(member.__func__, where, more)))
            elif inspect.isfunction(member):
                setattr(cls, name, _checked(member, where, more))
        return cls

    return decorate


def _checked(function: Callable, where: str, options: list[str]) -> Callable:
    """Let a method refuse the names of arguments that it does not have."""
    rest = inspect.getfullargspec(function).varkw
    if rest not in (None, "options"):
        return function
    known = [*_named(function), *(options if rest else [])]
    public = [name for name in known if not name.startswith("_")]
    parameters = list(inspect.signature(function).parameters.values())[1:]
    by_place = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]

    @wraps(function)
    def call(*args: object, **kwargs: object) -> object:
        check_known(where, [name for name in kwargs if name not in known], public)
        _check_places(where, args[1:], by_place, public)
        given = {*kwargs, *by_place[: len(args) - 1]}
        missing = [name for name in needed if name not in given]
        if missing:
            raise TypeError(f"`{where}` needs {_quoted(missing)}. It takes {_quoted(public)}.")
        return function(*args, **kwargs)

    return call


def _check_places(
    where: str, args: tuple[object, ...], by_place: list[str], public: list[str]
) -> None:
    """Refuse more arguments without a name than there are places."""
    if len(args) > len(by_place):
        named = [name for name in public if name not in by_place]
        takes = f"takes {_quoted(by_place)}" if by_place else "takes none"
        raise TypeError(
            f"`{where}` has {counted(len(args), 'argument')} without a name, and {takes} so. Pass "
            f"the others by name: {_quoted(named)}."
        )


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _named(method: Callable) -> list[str]:
    """Return the names of the arguments of a method, but for what it is a method of."""
    parameters = list(inspect.signature(method).parameters.values())[1:]
    return [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]


def nearest(name: str, known: Collection[str]) -> str | None:
    """Return the known name that is most like another, if any is like it."""
    by_lower = {option.lower(): option for option in known}
    found = get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[found[0]] if found else None
