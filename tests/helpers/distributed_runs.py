"""Runs that tests make in one process and in several, in float64, so that rounding flips no spike.

``torchrun --nproc-per-node 2 tests/helpers/distributed_runs.py RESULTS`` makes them all.
"""

import functools
import sys
from pathlib import Path
from unittest import mock

import torch
from tiny import TINY

import sastc
from sastc import distributed, train
from sastc.config import RunConfig
from sastc.data import epoch_batches
from sastc.records import RunError

CASES = {
    "baseline": dict(method="baseline"),
    "kd": dict(method="kd"),
    "feature_kd": dict(method="feature_kd", target_norm="layer", projector_bn="folded"),
    "sastc": dict(method="sastc"),
    # 93 = 40 + 40 + 13 images: the last batch falls into unequal shares
    "partial batch": dict(method="sastc", train_subset=93, partial_batch="keep", reduction="sum", beta=0.02),
    "control": dict(method="sastc", attention="cka", student="resnet18"),
    "accumulation": dict(method="sastc", accumulate=2, attention="untrained", stm_distance="euclidean"),
    "step logits": dict(method="seal_kd", timesteps=3, train_subset=93, partial_batch="keep"),
    "sum over maps": dict(method="kdsnn", train_subset=93, partial_batch="keep"),
    "batch norm beside": dict(method="fitnet"),
    "similar images": dict(method="sp"),
    "time means": dict(method="semckd", accumulate=2),
    "checkpointing": dict(method="sastc", checkpoint="blocks", student_tap="membrane"),
}
RESUMED = RunConfig(**TINY | dict(method="kd", seed=3, epochs=3))
LOCAL = RunConfig(**TINY | dict(method="sastc", batch_norm="per_process", similarity="per_process"))


class Stopped(RuntimeError):
    """What ends a run in the middle."""


def config(name: str) -> RunConfig:
    return RunConfig(**TINY | CASES[name])


def run(config: RunConfig, results: Path) -> sastc.Run:
    return train.run(config, results=results, progress=False)


def run_epochs(config: RunConfig, results: Path, epochs: int) -> None:
    """Run until so many epochs are recorded."""

    def stop(trained, history) -> bool:
        if len(history) == epochs and trained == config:
            raise Stopped
        return False

    with mock.patch.object(train.trainer, "_stop_early", stop):
        try:
            run(config, results)
        except Stopped:
            return
    raise AssertionError("the run was not stopped")


def in_float64() -> mock._patch:
    """Networks and images in float64 instead of float32."""
    torch.set_default_dtype(torch.float64)
    return mock.patch.object(train.trainer, "epoch_batches", functools.partial(epoch_batches, dtype=torch.float64))


def fail_in_one_process(results: Path) -> None:
    """Process 1 alone has an error in its first epoch."""
    original = train.Trainer.train_batches

    def batches(training, epoch):
        if distributed.rank() == 1:
            raise RunError("this process cannot go on")
        return original(training, epoch)

    with mock.patch.object(train.Trainer, "train_batches", batches):
        run(config("baseline"), results)


def main(results: Path) -> None:
    with distributed.processes("cpu"), in_float64():
        assert distributed.size() == 2
        for name in CASES:
            run(config(name), results)
        run_epochs(RESUMED, results, 2)  # of which the first is there
        run(LOCAL, results)
    fail_in_one_process(results / "failing")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
