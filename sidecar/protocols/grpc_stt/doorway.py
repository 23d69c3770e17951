"""Around every call: where it comes from, how often, and what came of it.

Health and reflection too.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio

from sidecar import clock, errors
from sidecar.auth.entrance import Entrance
from sidecar.auth.headers import check as check_headers
from sidecar.observability.tally import WireTally
from sidecar.observability.tracing import ARRIVED, Arrival
from sidecar.protocols.grpc_stt.callers import approach_of
from sidecar.protocols.grpc_stt.ending import end

NONE = "(none)"
"""The method of calls for which there is none of ours."""


class Doorway(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Lets in who may come at all; who it is, is asked where that matters. Counts calls."""

    def __init__(
        self, entrance: Entrance, tally: WireTally, *, encrypted: bool, traced: bool = False
    ) -> None:
        """``traced``: whether it is noted when a call came, and as part of what."""
        self._entrance = entrance
        self._tally = tally
        self._traced = traced
        self._encrypted = encrypted

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        """What answers the call, with us before it."""
        found = await continuation(details)
        if found is None:
            self._tally.calls.add(NONE, grpc.StatusCode.UNIMPLEMENTED.name)
            return None
        method = details.method
        if found.response_streaming:
            behind = found.stream_stream or found.unary_stream
            kind = "stream" if found.request_streaming else "unary"
            make = getattr(grpc, f"{kind}_stream_rpc_method_handler")
            return make(
                self._streaming(behind, method),
                found.request_deserializer,
                found.response_serializer,
            )
        if found.request_streaming:
            return found
        return grpc.unary_unary_rpc_method_handler(
            self._single(found.unary_unary, method),
            found.request_deserializer,
            found.response_serializer,
        )

    async def _arrive(self, context: Any) -> None:
        metadata = context.invocation_metadata() or ()
        if self._traced:
            said = dict(metadata)
            traced = said.get("traceparent", ""), said.get("tracestate", "")
            ARRIVED.set(Arrival(clock.wall(), *traced))
        try:
            check_headers((_bytes(name), _bytes(value)) for name, value in metadata)
            self._entrance.arrive(approach_of(metadata, context.peer(), encrypted=self._encrypted))
        except errors.SidecarError as error:
            await end(context, error)

    @contextmanager
    def _counted(self, method: str, context: Any) -> Iterator[None]:
        try:
            yield
        except asyncio.CancelledError:
            self._tally.calls.add(method, _cancelled(context))
            raise
        except BaseException:
            self._tally.calls.add(method, _status(context) or grpc.StatusCode.UNKNOWN.name)
            raise
        self._tally.calls.add(method, _status(context) or grpc.StatusCode.OK.name)

    def _single(self, behind: Callable[[Any, Any], Any], method: str) -> Callable[[Any, Any], Any]:
        async def answer(request: Any, context: Any) -> Any:
            with self._counted(method, context):
                await self._arrive(context)
                answered = behind(request, context)
                return await answered if inspect.isawaitable(answered) else answered

        return answer

    def _streaming(
        self, behind: Callable[[Any, Any], Any], method: str
    ) -> Callable[[Any, Any], Any]:
        async def answer(request: Any, context: Any) -> None:
            with self._counted(method, context):
                await self._arrive(context)
                answered = behind(request, context)
                if inspect.isawaitable(answered):
                    await answered
                else:
                    async for each in answered:
                        await context.write(each)

        return answer


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _status(context: Any) -> str:
    """What a call ended with, by name; "" where nobody said."""
    code = context.code()
    value = code.value[0] if isinstance(code, grpc.StatusCode) else code
    found = (str(one.name) for one in grpc.StatusCode if one.value[0] == value)
    return next(found) if value else ""


def _cancelled(context: Any) -> str:
    """Why a call was given up by its client: it did not want it, or not for so long."""
    left = context.time_remaining()
    late = left is not None and left <= 0
    code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
    return str(code.name)
