"""Models in files."""

import pytest
from safetensors.torch import load_file, save_file

from components.core.errors import BundleError
from components.detectors.catalogue import create, settings_for
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
