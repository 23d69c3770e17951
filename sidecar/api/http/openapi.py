"""OpenAPI: schemas, parameters and bodies of routes, shared responses, the page /docs."""

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from sidecar import clock
from sidecar.errors import FieldInvalid
from sidecar.interfaces import request_options
from sidecar.interfaces.language_tags import printable_text
from sidecar.interfaces.request_fields import REQUEST_FIELDS, RequestField


class RenderedBody(BaseModel):
    """Response body that is rendered from an object of the service, by the fields in OpenAPI."""

    model_config = ConfigDict(from_attributes=True)

    @classmethod
    def render(cls, source: object) -> dict[str, Any]:
        """Return the body of ``source`` as JSON values, without fields that have their default."""
        return cls.model_validate(source).model_dump(exclude_defaults=True)


UtcDate = Annotated[str, BeforeValidator(clock.format_utc)]
"""From seconds since 1970."""
RoundedSeconds = Annotated[float, AfterValidator(lambda seconds: round(seconds, 3))]


class Routes(APIRouter):
    """Router that takes the summary of an operation from the docstring of its function. Without a
    model of the response, ``responses`` describe all of it."""

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **how: Any) -> None:
        """Add a route; its function loses the docstring, which is not also the description."""
        if endpoint.__doc__:
            how["summary"], endpoint.__doc__ = endpoint.__doc__.removesuffix("."), None
        if not how["response_model"]:
            how["response_class"] = Response
        super().add_api_route(path, endpoint, **how)


class RequestRoute(APIRoute):
    """Route whose function takes the request and returns the response: FastAPI parses nothing for
    it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the function itself."""
        return cast(Callable[[Request], Coroutine[Any, Any, Response]], self.endpoint)


async def refuse_unknown_parameters(request: Request) -> None:
    """Refuse a parameter in the query of a GET or DELETE that its operation does not list, as a
    misspelled one would have no effect. Those of other methods are fields like those of the body.

    Raises:
        errors.FieldInvalid: there is one.
    """
    operation = getattr(request.scope["route"], "openapi_extra", None) or {}
    known = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]
    if request.method in ("GET", "DELETE"):
        unknown = (one for one in request.query_params if one not in (*known, "api_key"))
        if (name := next(unknown, None)) is not None:
            meant = request_options.did_you_mean(name, known)
            raise FieldInvalid(f"There is no parameter '{printable_text(name)}'.{meant}")


CHECKS = (Depends(refuse_unknown_parameters),)
"""Dependencies of routers that accept no unknown parameter."""


class ProblemDetails(BaseModel):
    """Problem details (RFC 9457); the codes are in docs/errors.md."""

    type: str = Field(examples=["urn:vibevoice-asr:error:audio_empty"])
    title: str = Field(examples=["Bad Request"])
    status: int = Field(examples=[400])
    code: str = Field(examples=["audio_empty"])
    detail: str = Field(examples=["The audio is empty (0 bytes)."])
    hint: str = Field(examples=["Check that the recording was written before it was sent."])
    request_id: str = Field(examples=["9f0c…"], description="Id of the request, for reports.")


def content(*media_types: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the content of a response as one of ``media_types``; without a schema it is text."""
    return {kind: {"schema": schema or text()} for kind in media_types}


def error_responses(content: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """Return the error responses of a route."""
    return {
        "4XX": {"description": "Error of the request", "content": content},
        "5XX": {"description": "Error of the service", "content": content},
    }


def text(description: str = "", **more: Any) -> dict[str, Any]:
    """Return the schema of a string."""
    return {"type": "string", **_described(description), **more}


def choice(values: Iterable[str], description: str = "", **more: Any) -> dict[str, Any]:
    """Return the schema of a string that is one of ``values``."""
    return text(description, enum=[*values], **more)


def flag(default: bool, description: str = "") -> dict[str, Any]:
    """Return the schema of a boolean."""
    return {"type": "boolean", "default": default, **_described(description)}


def number(
    least: float, most: float | None, description: str = "", kind: str = "number", **more: Any
) -> dict[str, Any]:
    """Return the schema of a number with limits; ``most`` may be `None`."""
    limits = {"minimum": least} | ({} if most is None else {"maximum": most})
    return {"type": kind, **limits, **_described(description), **more}


def integer(least: int, most: int, description: str = "", **more: Any) -> dict[str, Any]:
    """Return the schema of an integer with limits."""
    return number(least, most, description, "integer", **more)


def texts(description: str) -> dict[str, Any]:
    """Return the schema of a list of strings."""
    return {"type": "array", "items": {"type": "string"}, "description": description}


def _described(description: str) -> dict[str, str]:
    return {"description": description} if description else {}


def parameters(*given: dict[str, Any]) -> dict[str, Any]:
    """Return the part of an operation that lists its parameters."""
    return {"parameters": [*given]}


def query(name: str, schema: dict[str, Any], description: str = "") -> dict[str, Any]:
    """Return an optional parameter in the query."""
    return _parameter(name, "query", schema, description)


def header(name: str, schema: dict[str, Any], description: str = "") -> dict[str, Any]:
    """Return an optional header."""
    return _parameter(name, "header", schema, description)


def _parameter(name: str, where: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    at = {"name": name, "in": where, "required": False, "schema": schema}
    return {**at, **_described(description)}


def idempotency_key(description: str) -> dict[str, Any]:
    """Return the header `Idempotency-Key`."""
    schema = text(minLength=1, maxLength=255, pattern="^[!#-~]+$")
    return header("Idempotency-Key", schema, description)


PROBLEMS = error_responses(
    content("application/problem+json", schema=ProblemDetails.model_json_schema())
)
"""Error responses of every route: an `APIRouter` is created with it."""
PATH = text("Full path of a file on this machine.")
AUDIO_FILE = text(format="binary")


def object_schema(
    properties: dict[str, Any], required: Sequence[str] | None = None, **more: Any
) -> dict[str, Any]:
    """Return the schema of an object."""
    needed = {} if required is None else {"required": [*required]}
    return {"type": "object", **needed, "properties": properties, **more}


def body(content: dict[str, Any]) -> dict[str, Any]:
    """Return the part of an operation that describes its body."""
    return {"requestBody": {"required": True, "content": content}}


def request_body(
    json: dict[str, Any], form: dict[str, Any] | None = None, **examples: Any
) -> dict[str, Any]:
    """Return the body of a request as JSON and, with ``form``, also as a multipart form.

    ``json``, ``form``: schemas; ``examples``: of the JSON.
    """
    content = {"application/json": {"schema": json, **examples}}
    if form is not None:
        content["multipart/form-data"] = {"schema": form}
    return body(content)


def submission(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of a request with a recording and ``options``, as JSON and as a form."""
    return request_body(
        object_schema({"audio_path": PATH, **options}, ["audio_path"]),
        object_schema({"audio": AUDIO_FILE, **options}, ["audio"]),
        example={
            "audio_path": "/home/me/recordings/meeting.opus",
            "precision": "fp16",
            "language": "auto",
            "hotwords": "Nagg, Nell, Beckett",
            "num_speakers": 2,
        },
    )


def schema_fields(operation: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of all fields in the forms of a `request_body`."""
    content = operation["requestBody"]["content"]
    forms = [one["schema"]["properties"] for one in content.values()]
    return frozenset(name for properties in forms for name in properties)


def _option(row: RequestField) -> dict[str, Any]:
    """Return the schema of an option of a request."""
    if row.kind is bool:
        return flag(row.default, row.text)
    default = row.default or 0 if row.kind is float else row.default
    more: dict[str, Any] = {} if default in (None, "", ()) else {"default": default}
    more |= {"examples": [*row.examples]} if row.examples else {}
    if issubclass(row.kind, StrEnum):
        return choice(row.kind, row.text, **more | {"default": row.default.value})
    if row.kind is str:
        return text(row.text, **more)
    kind = "integer" if row.kind is int else "number"
    return number(row.least, row.most, row.text, kind, **more)


OPTIONS: Mapping[str, dict[str, Any]] = {name: _option(row) for name, row in REQUEST_FIELDS.items()}
"""Options of a recording; warnings name those that the engine lacks (`option_ignored`)."""

PAGE = "/docs"
ASSETS = "/docs/assets"
NOT_FRAMED = {"Content-Security-Policy": "frame-ancestors 'none'", "X-Frame-Options": "DENY"}
"""Headers against clickjacking: no other page may show this one in a frame."""


def install_docs_page(app: FastAPI) -> None:
    """Serve the page /docs and its assets."""
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
