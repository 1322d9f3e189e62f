"""Self-attentive spatio-temporal calibration (SASTC) for ANN-to-SNN distillation.

Names and modules are imported when first used, so that ``sastc.RunConfig`` does not wait for torch. Type checkers and
editors see the imports below.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sastc.build import load_model as load_model
    from sastc.calibration import SelfAttentiveCalibration as SelfAttentiveCalibration
    from sastc.cka import linear_cka as linear_cka
    from sastc.config import ConfigError as ConfigError
    from sastc.config import RunConfig as RunConfig
    from sastc.data import load_dataset as load_dataset
    from sastc.energy import count_energy as count_energy
    from sastc.experiments import load_experiment as load_experiment
    from sastc.explorer import explore as explore
    from sastc.fisher import fisher_trace as fisher_trace
    from sastc.losses import kd_loss as kd_loss
    from sastc.losses import sastc_loss as sastc_loss
    from sastc.methods import Method as Method
    from sastc.methods import option as option
    from sastc.models import create_model as create_model
    from sastc.neurons import LIF as LIF
    from sastc.records import Run as Run
    from sastc.records import RunError as RunError
    from sastc.records import find_run as find_run
    from sastc.records import list_runs as list_runs
    from sastc.sam import spike_activation_map as spike_activation_map
    from sastc.stm import stm_score as stm_score
    from sastc.train import run as run

_NAMES = {
    "build": "load_model", "calibration": "SelfAttentiveCalibration", "cka": "linear_cka",
    "config": "ConfigError RunConfig", "data": "load_dataset", "energy": "count_energy",
    "experiments": "load_experiment", "explorer": "explore", "fisher": "fisher_trace", "losses": "kd_loss sastc_loss",
    "methods": "Method option", "models": "create_model", "neurons": "LIF",
    "records": "Run RunError find_run list_runs", "sam": "spike_activation_map", "stm": "stm_score", "train": "run",
}  # fmt: skip
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"sastc.{_HOME[name]}"), name)
    if not name.startswith("_") and importlib.util.find_spec(f"sastc.{name}"):
        return importlib.import_module(f"sastc.{name}")
    raise AttributeError(f"module 'sastc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
