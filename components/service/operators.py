"""Routes of the overview, the threshold and the models: what operators look at, and what they may change."""

import time
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Query

from components.service import documents
from components.service.answers import Service
from components.service.overview import overview
from components.service.rights import Rights

FRESH = 5.0  # seconds for which an overview is shown to all who ask


def add_desk(app: FastAPI, service: Service, rights: Rights) -> None:
    """Mount the guarded routes."""
    guard = [Depends(rights.read)]
    told: dict[int, tuple[float, dict[str, Any]]] = {}

    @app.get("/v1/overview", dependencies=guard, responses={401: documents.REFUSALS[401]})
    async def overview_of(hours: Annotated[Literal["24", "72", "168", "720"], Query()] = "24") -> dict[str, Any]:
        """Per source: alarms by hour and shift, scores, drift and alarm rate; the model; the store."""
        made, known = told.get(int(hours), (0.0, {}))
        if not known or time.monotonic() - made > FRESH:
            known = await service.read(overview, service, int(hours), service.clock())
            told[int(hours)] = time.monotonic(), known
        return known
