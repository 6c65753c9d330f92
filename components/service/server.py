"""``loupe serve``: the service in a uvicorn server."""

import logging
from pathlib import Path

from components.core.errors import SettingsError
from components.registry.mlflow import Registry
from components.registry.settings import RegistrySettings
from components.service.champion import Champion
from components.service.desk import Desk
from components.service.recorder import Recorder
from components.service.routes import create_app
from components.service.settings import ServiceSettings
from components.service.tls import tls_options
from components.service.uploads import HEADER_BYTES
from components.storage import open_store

log = logging.getLogger("loupe")


def serve(
    name: str, settings: ServiceSettings, registry: RegistrySettings, store: str, desk: Desk | None = None
) -> None:
    """Serve a bundle folder, or the champion registered under *name*, until SIGTERM; then drain and ship the log.

    *desk* is what the pages need of rooms above.
    """
    try:
        import uvicorn
    except ImportError:
        raise SettingsError("loupe serve needs the extra `serve`: pip install 'loupe[serve]'") from None
    tls = tls_options(settings)
    folder = (Path(name) / "manifest.json").exists()
    known, kept = None if folder else Registry(registry), Path(settings.spool) / "models"
    champion = Champion(name, known, kept, settings.threads, settings.runs)
    app = create_app(champion, Recorder(open_store(store), settings, champion.concerns), settings, desk=desk)
    log.info(
        "serving %s on %s://%s:%d",
        champion.identity()["model_version"],
        "https" if tls else "http",
        settings.host,
        settings.port,
    )
    # h11 bounds the size of headers, which httptools does not.
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        http="h11",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=int(settings.drain_seconds),
        h11_max_incomplete_event_size=HEADER_BYTES,
        server_header=False,
        **tls,
    )
