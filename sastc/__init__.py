"""Self-attentive spatio-temporal calibration (SASTC) for ANN-to-SNN distillation.

Names and modules are imported when first used, so that ``sastc.RunConfig`` does not wait for torch.
"""

import importlib
import importlib.util
from typing import Any

_HOME = {
    "RunConfig": "config",
    "ConfigError": "config",
    "Run": "records",
    "RunError": "records",
    "find_run": "records",
    "list_runs": "records",
    "run": "train",
    "load_model": "build",
    "create_model": "models",
    "load_dataset": "data",
    "Method": "methods",
    "option": "methods",
    "LIF": "neurons",
    "SelfAttentiveCalibration": "calibration",
    "kd_loss": "losses",
    "sastc_loss": "losses",
    "stm_score": "stm",
    "fisher_trace": "fisher",
    "spike_activation_map": "sam",
    "count_energy": "energy",
    "linear_cka": "cka",
    "explore": "explorer",
    "load_experiment": "experiments",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"sastc.{_HOME[name]}"), name)
    if not name.startswith("_") and importlib.util.find_spec(f"sastc.{name}"):
        return importlib.import_module(f"sastc.{name}")
    raise AttributeError(f"module 'sastc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
