"""How good each detector is on seven views, what the time went to, its memory and its exported graph.

A view's data are checked, split and given synthetic anomalies once per seed; then each detector is trained, calibrated,
evaluated and exported by the stages that DVC and the flows call, training in a process of its own on one thread, so
that its time and peak memory are its own. Frozen features come from one store that all share: what they cost is
told apart. Figures go to benchmarks/results/fit.json, and ``loupe bench table`` makes tables of them; evaluation is on
the test split, whose labels choose nothing.
"""

from benchmarks.common.fitting import fitted
from benchmarks.common.runner import options
from benchmarks.common.views import ALL
from components.detectors.catalogue import CATALOGUE


def main(arguments: list[str]) -> None:
    parser = options("fit", __doc__, jobs=True)
    parser.add_argument(
        "--graphs", action="store_true", help="export what was trained again and time its graph; other figures stay"
    )
    parser.add_argument("names", nargs="*", metavar="VIEW/DETECTOR[@SEED]")
    asked = parser.parse_args(arguments)
    fitted(asked.names or [f"{v}/{d}" for d in CATALOGUE for v in ALL], asked.jobs, asked.graphs)
