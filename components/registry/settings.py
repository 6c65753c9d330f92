"""The knobs of the registry and of the gate before it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RegistrySettings:
    """*uri* may name an MLflow server; *artefacts* an s3:// address. Decisions and the lock live in *folder*."""

    folder: str = "registry"
    uri: str | None = None
    artefacts: str | None = None
    experiment: str = "loupe"


@dataclass(frozen=True)
class GateSettings:
    """How much worse a challenger may be, and what it must not exceed."""

    auroc_loss: float = 0.02  # on synthetic anomalies
    recall_loss: float = 0.10  # of synthetic anomalies and of reviewed defects, each at the model's own threshold
    frozen_margin: float = 2.0  # binomial standard deviations above alpha that false alarms on frozen normals may lie
    latency_factor: float = 1.5
    latency_ms: float = 1000.0
    max_contamination: float = 0.05  # share of defects in the candidate pool, by estimate and by the window's alarms
