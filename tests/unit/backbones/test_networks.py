"""timm's networks: read when the first is made, and told apart by what their features are."""

import os
import subprocess
import sys

import pytest

from components.backbones.networks import is_transformer, network


@pytest.mark.slow
def test_timm_is_read_when_a_network_is_made():
    """A third of the start of a process that has to do with a model; methods in pixels make none."""
    asked = (
        "import sys, components.pipeline.stages, components.export.export, components.training.model;"
        "from components.detectors.catalogue import create, detector_class;"
        "made = create('alps', detector_class('alps').settings_type());"
        "sys.exit('timm' in sys.modules)"
    )
    command, environment = [sys.executable, "-c", asked], os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("name", "expected"), [("tf_efficientnet_lite0", False), ("vit_tiny_patch16_224", True)])
def test_features_of_a_transformer_are_known(name, expected):
    assert is_transformer(network(name, features_only=True, out_indices=(1, 2))) is expected
