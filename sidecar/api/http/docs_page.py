"""The interactive documentation at /docs, from this machine: no CDN is told that somebody looks."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

PAGE = "/docs"
ASSETS = "/docs/assets"
NOT_FRAMED = {"Content-Security-Policy": "frame-ancestors 'none'", "X-Frame-Options": "DENY"}
"""No other page puts this one into a frame and has its visitors click there."""


def install(app: FastAPI) -> None:
    """Serve the page and what it needs."""
    package = find_spec("fastapi_offline")
    if package is None or package.origin is None:
        return
    app.mount(ASSETS, StaticFiles(directory=Path(package.origin).parent / "static"))

    @app.get(PAGE, include_in_schema=False)
    async def page() -> HTMLResponse:
        answer = get_swagger_ui_html(
            openapi_url=app.openapi_url or "",
            title=app.title,
            swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{ASSETS}/swagger-ui.css",
            swagger_favicon_url="data:,",
        )
        answer.headers.update(NOT_FRAMED)
        return answer
