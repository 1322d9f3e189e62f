"""Finished runs with made-up numbers, as pages read them."""

from sastc import records
from sastc.experiments import Experiment
from sastc.records import run_path

PROVENANCE = {"device": "a CPU", "threads": 1, "teacher": {"accuracy": 99.0}}


def record(results, config, arrays=None, layers=None, **metrics):
    """A finished run as `sastc.run` leaves it."""
    folder = run_path(config, results)
    records.write_json(folder / "config.json", config.to_dict())
    records.write_json(folder / "provenance.json", PROVENANCE)
    if arrays:
        records.write_arrays(folder / "measures.npz", arrays)
    if layers is not None:
        layers.to_csv(folder / "energy.csv", index=False)
    defaults = dict(accuracy=90.0, stm=1.0, train_seconds_per_epoch=2.0, test_seconds=0.5)
    records.write_json(folder / "metrics.json", defaults | metrics)
    return records.Run(folder)


def plan(*configs):
    return Experiment("x", "x", "x", "quick", tuple(configs))
