"""Models in files."""

import pytest
from safetensors.torch import load_file, save_file

from components.core.errors import BundleError
from components.detectors.catalogue import create, settings_for
from components.training import model
from components.training.model import load_model, save_model


def test_a_model_of_another_version_is_refused_with_advice(tmp_path):
    detector = create("sgsf", settings_for("sgsf", "tiny", {"guidance": "self"}))
    save_model(detector, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    save_file(
        {key.replace("encoder.encoder", "encoder"): v for key, v in state.items()}, tmp_path / "model.safetensors"
    )
    with pytest.raises(BundleError, match=r"do not fit sgsf .* train it again"):
        load_model(tmp_path)


def test_whoever_loads_a_model_keeps_freed_memory(tmp_path, monkeypatch):
    """Descriptors and parity ran in a process in which nothing had asked for that, and took twice the time."""
    save_model(create("patchcore", settings_for("patchcore", "tiny", {}), pretrained=False), tmp_path)
    asked = []
    monkeypatch.setattr(model, "keep_freed_memory", lambda: asked.append(1))
    load_model(tmp_path)
    assert asked == [1]
