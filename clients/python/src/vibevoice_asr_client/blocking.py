"""Blocking methods made of asynchronous ones, with the same names, parameters and types."""

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

    Parameters = ParamSpec("Parameters")

Inner = TypeVar("Inner")
Value = TypeVar("Value")


class BlockingClient(Protocol[Inner]):
    """Client that runs the coroutines of ``_inner``, an asynchronous one, to their end."""

    _inner: Inner

    def _do(self, work: Coroutine[Any, Any, Value]) -> Value: ...


def blocking(
    method: Callable[Concatenate[Inner, Parameters], Coroutine[Any, Any, Value]],
) -> Callable[Concatenate[BlockingClient[Inner], Parameters], Value]:
    """Return a method that runs ``method`` to its end and returns its result."""

    @wraps(method)
    def call(
        self: BlockingClient[Inner], /, *args: Parameters.args, **options: Parameters.kwargs
    ) -> Value:
        return self._do(method(self._inner, *args, **options))

    return call


def blocking_iterator(
    method: Callable[Concatenate[Inner, Parameters], AsyncGenerator[Value, None]],
) -> Callable[Concatenate[BlockingClient[Inner], Parameters], Iterator[Value]]:
    """Return a method whose result iterates over what ``method`` yields."""

    @wraps(method)
    def iterate(
        self: BlockingClient[Inner], /, *args: Parameters.args, **options: Parameters.kwargs
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
