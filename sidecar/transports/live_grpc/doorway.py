"""Before every call, health and reflection too: where it comes from, and how often."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from sidecar import clock, errors
from sidecar.access.entrance import Entrance
from sidecar.diagnostics.tracing import ARRIVED, Arrival
from sidecar.transports.live_grpc.callers import approach_of
from sidecar.transports.live_grpc.ending import end


class Doorway(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Lets in who may come at all; who it is, is asked where that matters."""

    def __init__(self, entrance: Entrance, *, encrypted: bool, traced: bool = False) -> None:
        """``traced``: whether it is noted when a call came, and as part of what."""
        self._entrance = entrance
        self._traced = traced
        self._encrypted = encrypted

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        """What answers the call, with us before it."""
        found = await continuation(details)
        if found is None:
            return None
        if found.response_streaming:
            behind = found.stream_stream or found.unary_stream
            kind = "stream" if found.request_streaming else "unary"
            make = getattr(grpc, f"{kind}_stream_rpc_method_handler")
            return make(
                self._streaming(behind), found.request_deserializer, found.response_serializer
            )
        if found.request_streaming:
            return found
        return grpc.unary_unary_rpc_method_handler(
            self._single(found.unary_unary), found.request_deserializer, found.response_serializer
        )

    async def _arrive(self, context: Any) -> None:
        if self._traced:
            said = dict(context.invocation_metadata() or ())
            traced = said.get("traceparent", ""), said.get("tracestate", "")
            ARRIVED.set(Arrival(clock.wall(), *traced))
        try:
            self._entrance.arrive(
                approach_of(
                    context.invocation_metadata() or (), context.peer(), encrypted=self._encrypted
                )
            )
        except errors.SidecarError as error:
            await end(context, error)

    def _single(self, behind: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        async def answer(request: Any, context: Any) -> Any:
            await self._arrive(context)
            answered = behind(request, context)
            return await answered if inspect.isawaitable(answered) else answered

        return answer

    def _streaming(self, behind: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        async def answer(request: Any, context: Any) -> None:
            await self._arrive(context)
            answered = behind(request, context)
            if inspect.isawaitable(answered):
                await answered
            else:
                async for each in answered:
                    await context.write(each)

        return answer
