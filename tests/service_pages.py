"""The service in this process, with records of any time in its log and without a browser; shared by tests of pages."""

from datetime import UTC, datetime, timedelta

from fastapi.testclient import TestClient

from components.decision.bundle import Bundle
from components.service.champion import Champion
from components.service.desk import Desk
from components.service.recorder import Recorder
from components.service.routes import create_app
from components.service.settings import ServiceSettings
from components.storage import open_store

AT = datetime(2026, 11, 28, 12, 30, tzinfo=UTC)


class Line:
    """A service on *bundle* below *root*; ``put`` writes records as the line would, ``ask`` is an HTTP client."""

    def __init__(self, bundle, root, desk=None, champion=None, **settings):
        self.settings = ServiceSettings(spool=str(root / "spool"), threads=1, time_zone="UTC", **settings)
        self.recorder = Recorder(open_store(str(root / "store")), self.settings)
        self.champion = champion or Champion(str(bundle), None, root / "models", 1)
        self.bundle: Bundle = self.champion.served.bundle
        app = create_app(self.champion, self.recorder, self.settings, lambda: AT, desk or Desk())
        self.service = app.state.service
        self.http = TestClient(app, raise_server_exceptions=False)

    def put(self, name, ago=timedelta(), alarm=False, source="line-1", **more):
        """One record, *ago* before AT; score and p-value are those of its decision at the bundle's threshold."""
        point = self.bundle.calibration
        record = {
            "record_id": f"id-{name}",
            "scored_at": (AT - ago).isoformat(),
            "image_id": name,
            "source": source,
            "dataset": "product",
            "score": point.threshold + (1.0 if alarm else -1.0),
            "p_value": point.alpha / 2 if alarm else 0.9,
            "decision": "anomalous" if alarm else "normal",
            "threshold": point.threshold,
            "model": "patchcore",
            "model_version": self.bundle.version,
            "brightness": 0.5,
            "contrast": 0.1,
            "sharpness": 10.0,
            "width": 96,
            "height": 96,
            "sha256": "0" * 64,
            "image_uri": "",
            "embedding": [0.0] * 16,
        }
        self.recorder.append([record | more])
        return f"id-{name}"

    def ship(self):
        """Everything into the store, and only there: what a service finds after a restart that read nothing back."""
        assert self.recorder.shipper.ship()
        self.recorder.recent.clear()

    def get(self, path, **more):
        answer = self.http.get(path, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def names(self, query=""):
        return [row["image_id"] for row in self.get(f"/v1/records?{query}")["records"]]
