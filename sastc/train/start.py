"""run(config): return the recorded result, or train what is missing, the teacher first."""

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from sastc import build, distributed, native, records
from sastc.config import RunConfig
from sastc.data import Dataset
from sastc.data.identity import facts
from sastc.methods import Method
from sastc.records import DivergedError, Run
from sastc.train.recorder import locked
from sastc.train.teacher import teacher_run
from sastc.train.trainer import Trainer


def run(
    config: RunConfig,
    *,
    method: type[Method] | Method | None = None,
    results: str | Path = "results",
    data: str | Path = "data",
    device: str | torch.device = "auto",
    progress: bool = True,
    force: bool = False,
    compiler: str | None = None,
) -> Run:
    """Train what `config` describes, or return the recorded run if it is there and complete.

    A recorded run, or a teacher, is taken only for the data that it was made from; where the data cannot be loaded, it
    is returned as it is.

    The teacher is trained first where there is none yet. An interrupted run goes on from its last epoch, on the CPU
    with as many threads as it began with, and ends with the same numbers, there bit for bit. Under torchrun all
    processes train the run together, each with its share of every batch, and the first one records; their number may
    change when a run goes on.

    Parameters
    ----------
    config : RunConfig
    method : subclass of Method, optional
        A method of one's own in the place of the config's; with options that are not at their defaults an object,
        ``MyMethod(alpha=2.0)``. See :mod:`sastc.methods`.
    results, data : path
        Folders of the runs and of the datasets.
    device : str
        "auto" takes a GPU where there is one.
    progress : bool
        Show a progress bar.
    force : bool
        Run again, from the first epoch, even if a result is recorded. The new one takes its place when it is complete.
    compiler : str, optional
        Compile the student's steps with this backend of ``torch.compile``; "inductor" replays them as CUDA graphs on a
        single GPU that accumulates no gradients. Numbers then differ by rounding, which flips spikes, and the
        provenance says so. By default only neurons are compiled, which changes no number.

    Raises
    ------
    ConfigError
        `method` is not a method as it should be.
    RunError
        The run cannot start or go on: another process is writing it, the folder cannot be written, there are too few
        images for the batch size, or the data or the code of a method of one's own differ from those of the record.
        What was recorded before is kept.
    DivergedError
        A RunError: the loss or a weight is no longer finite. It is recorded, and raised again without training unless
        `force` is set.
    """
    if method is not None:
        config = config.replace(method=method)
    return _Runs(results, data, device, progress).run(config, force, compiler)


@dataclasses.dataclass(frozen=True)
class _Runs:
    """What one call of :func:`run` shares between a student's run and its teacher's."""

    results: str | Path
    data: str | Path
    device: str | torch.device
    progress: bool
    datasets: dict[tuple, Dataset] = dataclasses.field(default_factory=dict)  # each is loaded once

    def run(
        self, config: RunConfig, force: bool = False, compiler: str | None = None, needs_weights: bool = False
    ) -> Run:
        """:func:`run`; with `needs_weights` a recorded run whose weights are missing is made again."""
        folder = records.run_path(config, self.results)
        recorded = Run(folder)

        def done() -> bool:
            if not recorded.ended or force:
                return False
            with contextlib.suppress(OSError):  # no data at hand
                build.check_data(recorded, self.dataset(config))
            build.check_code(recorded, config)
            if found := recorded.diverged:
                raise DivergedError(recorded.name, found["what"], found["epoch"], recorded.command)
            return (folder / "weights.pt").exists() or not needs_weights

        with distributed.processes(self.device) as device, contextlib.ExitStack() as stack:
            stack.enter_context(_torch_settings(tf32=config.precision == "tf32"))
            if distributed.once(done):
                return recorded
            if config.precision == "bf16" and device.type == "cpu" and not native.has_bf16():
                warnings.warn(
                    "this processor has neither amx_bf16 nor avx512_bf16: precision=bf16 is about 3.5 times slower "
                    "here than fp32; set precision=fp32, which makes a run of its own name",
                    stacklevel=3,
                )
            distributed.once(lambda: stack.enter_context(locked(folder)))
            distributed.once(lambda: records.take_over(folder))  # if a process was killed doing so
            if distributed.once(done):  # another process has just finished it
                return recorded
            place = distributed.once(lambda: folder / records.AGAIN if recorded.complete else folder)
            # mistakes show before work starts
            distributed.once(lambda: build.check_code(Run(place), config, force))
            trainer = Trainer(config, place, self.dataset(config), device, self.progress)
            if compiler:
                trainer.step.compile(compiler)
            if not force:
                distributed.once(lambda: trainer.recorder.check_begun("data", facts(trainer.dataset)))
            here = dataclasses.replace(self, device=device)
            teacher = teacher_run(config, self.results, trainer.dataset, lambda c: here.run(c, needs_weights=True))
            trainer.run(teacher, from_start=force)
            distributed.once(lambda: records.take_over(folder))
            return recorded

    def dataset(self, config: RunConfig) -> Dataset:
        """The dataset of a config."""
        key = tuple(build.dataset_options(config).items())
        if key not in self.datasets:
            self.datasets[key] = build.dataset(config, self.data)
        return self.datasets[key]


@contextlib.contextmanager
def _torch_settings(tf32: bool) -> Iterator[None]:
    """Let a GPU's convolutions round float32 to 10 bits of mantissa or not; afterwards torch is set as before.

    That includes the number of threads, which a run that goes on takes from its beginning.
    """
    before, threads = torch.backends.cudnn.allow_tf32, torch.get_num_threads()
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
