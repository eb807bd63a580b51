"""`/docs/openapi`: the routes as an OpenAPI 3.1 document."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from litestar import Litestar, Response, get
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme
from litestar.serialization import encode_json
from litestar.types import ControllerRouterHandler

MEDIA_TYPE = "application/vnd.oai.openapi+json"


def openapi_route(
    route_handlers: Sequence[ControllerRouterHandler], dependencies: Mapping[str, Provide], version: str
) -> HTTPRouteHandler:
    """A route that serves the document, made in a thread on demand: it would hold the loop too long."""
    made: list[bytes] = []

    @get("/docs/openapi", include_in_schema=False)
    async def openapi() -> Response[bytes]:
        if not made:
            made.append(await asyncio.to_thread(openapi_document, route_handlers, dependencies, version))
        return Response(made[0], media_type=MEDIA_TYPE)

    return openapi


def openapi_document(
    route_handlers: Sequence[ControllerRouterHandler], dependencies: Mapping[str, Provide], version: str
) -> bytes:
    """The document as JSON."""
    bearer = SecurityScheme(type="http", scheme="bearer", description="the value of COUNTERFOIL_ADMIN_TOKEN")
    config = OpenAPIConfig(
        title="counterfoil",
        version=version,
        use_handler_docstrings=True,
        components=Components(security_schemes={"bearer": bearer}),
        security=[{"bearer": []}],
    )
    described = Litestar(
        route_handlers=route_handlers,
        dependencies=dict(dependencies),
        openapi_config=config,
        logging_config=None,
        debug=False,
    )
    schema: dict[str, Any] = described.openapi_schema.to_schema()
    return encode_json(schema)
