"""Routes of the overview, the threshold and the models: what operators look at, and what they may change."""

import time
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Query
from pydantic import BaseModel, Field

from components.service import documents
from components.service.answers import Service
from components.service.overview import overview
from components.service.point import LARGEST, change, point
from components.service.rights import Caller, Rights
from components.service.standing import roll_back, standing

FRESH = 5.0  # seconds for which an overview is shown to all who ask


class Change(BaseModel):
    """What every change says: who wants it, if it is told, and why; both are kept in the decision record."""

    who: str = Field("the operator", min_length=1, max_length=100)
    reason: str = Field(min_length=3, max_length=500)


class Threshold(Change):
    """*alpha* is wanted; *seen* is the present one, so that two people do not undo each other unseen."""

    alpha: float = Field(gt=0, le=LARGEST, allow_inf_nan=False)
    seen: float = Field(gt=0, lt=1)


class Back(Change):
    """*seen* is the version that serves."""

    seen: str = Field(max_length=40)


def add_desk(app: FastAPI, service: Service, rights: Rights) -> None:
    """Mount the guarded routes."""
    guard, engineer = [Depends(rights.need("viewer"))], Depends(rights.need("engineer"))
    refused: documents.Responses = {401: documents.REFUSALS[401]}
    forbidden: documents.Responses = {status: documents.REFUSALS[status] for status in (403, 409, 422, 503)}
    told: dict[str, tuple[float, dict[str, Any]]] = {}

    @app.get("/v1/overview", dependencies=guard, responses=refused)
    async def overview_of(hours: Annotated[Literal["24", "72", "168", "720"], Query()] = "24") -> dict[str, Any]:
        """Per source: alarms by hour and shift, scores, drift and alarm rate; the model; the store."""
        made, known = told.get(hours, (0.0, {}))
        if not known or time.monotonic() - made > FRESH:
            known = await service.read(overview, service, int(hours), service.clock())
            told[hours] = time.monotonic(), known
        return known

    @app.get("/v1/threshold", dependencies=guard, responses=refused)
    async def threshold(n: Annotated[int, Query(ge=1, le=10_000)] = 1000) -> dict[str, Any]:
        """The operating point, those it could have, and score and p-value of the last *n* pictures of this model."""
        may = rights.changes and service.desk.repoint is not None
        return await service.read(point, service, n) | {"may_change": may}

    @app.post("/v1/threshold", responses=forbidden)
    async def set_threshold(body: Threshold, caller: Annotated[Caller, engineer]) -> dict[str, Any]:
        """Move what is served to another alpha, as `loupe calibrate` does; needs an engineer's token and a reason."""
        return await service.read(_moved, service, rights, caller, body)

    @app.get("/v1/models", dependencies=guard, responses=refused)
    async def models() -> dict[str, Any]:
        """Champion, challenger, all versions with their figures, and every decision with the gate's reasons."""
        return await service.read(standing, service) | {"may_change": rights.changes}

    @app.post("/v1/models/rollback", responses=forbidden)
    async def rollback(body: Back, caller: Annotated[Caller, engineer]) -> dict[str, Any]:
        """Restore the champion before the present one; needs an engineer's token and a reason."""
        return await service.read(_back, service, rights, caller, body)


def _moved(service: Service, rights: Rights, caller: Caller, body: Threshold) -> dict[str, Any]:
    name, who = service.champion.served.name, _who(caller, body)
    wanted = {"alpha": body.alpha, "who": who, "reason": body.reason}
    with rights.written(caller, "threshold", name, {"alpha": body.seen}, wanted):
        return change(service, body.alpha, body.seen, who, body.reason)


def _back(service: Service, rights: Rights, caller: Caller, body: Back) -> dict[str, Any]:
    name, who = service.champion.served.name, _who(caller, body)
    wanted = {"who": who, "reason": body.reason}
    with rights.written(caller, "rollback", name, {"version": body.seen}, wanted) as told:
        done = roll_back(service, body.seen, who, body.reason)
        told["after"] = wanted | {"version": done["version"]}
    return done


def _who(caller: Caller, body: Change) -> str:
    """A named user is who he is; the holder of a shared token says who he is."""
    return caller.name if caller.user else body.who
