"""An application served by uvicorn on the loop of a test, as `server.http_server` serves ours."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn


@asynccontextmanager
async def served(app: Any, **options: Any) -> AsyncIterator[socket.socket]:
    """The socket that listens for it. ``options``: those of uvicorn."""
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, **options))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        yield listener
        server.should_exit = True
        await serving
