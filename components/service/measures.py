"""Prometheus metrics of one service; its own registry, so that several can live in one process."""

from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from components.core.errors import LoupeError

OUTPUTS = {
    "queued": "Messages that wait",
    "sent": "Messages received since the start",
    "failed": "Tries that failed since the start",
    "refused": "Messages that were refused and kept aside since the start",
}
SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Measures:
    """Counters of images and refusals, a latency histogram, and gauges read when asked for."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.images = Counter("loupe_images", "Images scored", ["decision", "source"], registry=r)
        self.refusals = Counter("loupe_refusals", "Requests refused", ["kind"], registry=r)
        self.latency = Histogram("loupe_latency_seconds", "From queue to score", buckets=SECONDS, registry=r)
        self.waiting = Gauge("loupe_waiting", "Images in the queue", registry=r)
        self.batches = Gauge("loupe_batches", "Runs of the session", registry=r)
        self.shipped = Gauge("loupe_shipped", "Records in the object store since the start", registry=r)
        self.failing = Gauge("loupe_store_failing", "1 while the object store is out of reach", registry=r)
        self.outputs = {
            what: Gauge(f"loupe_output_{what}", said, ["output"], registry=r) for what, said in OUTPUTS.items()
        }
        self.dropped = Gauge("loupe_output_dropped", "Messages lost to the bound of the disk", registry=r)
        self.shadow_dropped = Gauge("loupe_shadow_dropped", "Pictures that the shadow had no place for", registry=r)
        self.reloads = Gauge("loupe_reloads", "Champions loaded since the start", registry=r)

    def scored(self, records: Sequence[dict[str, Any]]) -> None:
        for record in records:
            self.images.labels(record["decision"], record["source"]).inc()
            self.latency.observe(record["latency_ms"] / 1000)

    def refused(self, error: LoupeError) -> None:
        self.refusals.labels(type(error).__name__).inc()

    def render(self, service: Any) -> bytes:
        """The text that Prometheus scrapes."""
        self.waiting.set(service.batcher.waiting)
        self.batches.set(service.batcher.batches)
        self.shipped.set(service.recorder.shipper.shipped)
        self.failing.set(service.recorder.shipper.failing)
        self.shadow_dropped.set(service.shadow.dropped if service.shadow else 0)
        self.reloads.set(service.champion.reloads)
        for one in service.line.outputs.standing():
            for what, gauge in self.outputs.items():
                gauge.labels(one.name).set(getattr(one, what))
        self.dropped.set(service.line.outputs.dropped)
        return bytes(generate_latest(self.registry))
