"""Methods that wait, made of methods that are awaited: the same names, words and types."""

from __future__ import annotations

from functools import wraps
from typing import (
    TYPE_CHECKING,
    Any,
    AsyncGenerator,
    Callable,
    Coroutine,
    Iterator,
    Protocol,
    TypeVar,
)

if TYPE_CHECKING:
    from typing_extensions import Concatenate, ParamSpec

    Words = ParamSpec("Words")

Inner = TypeVar("Inner")
Value = TypeVar("Value")


class Waiting(Protocol[Inner]):
    """What waits for what ``_inner`` does."""

    _inner: Inner

    def _do(self, work: Coroutine[Any, Any, Value]) -> Value: ...


def waited(
    method: Callable[Concatenate[Inner, Words], Coroutine[Any, Any, Value]],
) -> Callable[Concatenate[Waiting[Inner], Words], Value]:
    """A method that returns what ``method`` comes to."""

    @wraps(method)
    def call(self: Waiting[Inner], /, *args: Words.args, **options: Words.kwargs) -> Value:
        return self._do(method(self._inner, *args, **options))

    return call


def iterated(
    method: Callable[Concatenate[Inner, Words], AsyncGenerator[Value, None]],
) -> Callable[Concatenate[Waiting[Inner], Words], Iterator[Value]]:
    """An iterator over what ``method`` yields."""

    @wraps(method)
    def iterate(
        self: Waiting[Inner], /, *args: Words.args, **options: Words.kwargs
    ) -> Iterator[Value]:
        events = method(self._inner, *args, **options)
        try:
            while True:
                try:
                    event = self._do(events.__anext__())
                except StopAsyncIteration:
                    return
                yield event
        finally:
            self._do(events.aclose())

    return iterate
