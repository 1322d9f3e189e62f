"""Compare recorded runs with the hashes that they carry, and give hashes to those of earlier versions."""

from pathlib import Path

from tqdm.auto import tqdm

from sastc.files import sha256
from sastc.records import AGAIN, SUMS, Run, RunError, is_recorded, list_runs, seal

# What every complete run holds; a teacher's may have no measures.
ALWAYS = ("config.json", "provenance.json", "history.csv", "energy.csv", "metrics.json", "log.txt")
# The property of a run that reads a file.
READERS = {"measures.npz": "measures", "indices.npz": "indices", "history.csv": "history", "energy.csv": "energy"}
READERS |= {"provenance.json": "provenance", "metrics.json": "metrics"}


def verify(results: str | Path = "results", *, sealing: bool = False, progress: bool = True) -> dict[Path, list[str]]:
    """What is wrong with the runs in or below the folder `results`, by the run's folder; sound runs are not named.

    With `sealing`, complete runs that can be read but have no ``SHA256SUMS`` are given them, from their files as they
    are. Raises RunError where there is no run.
    """
    runs = list_runs(results)
    if not runs:
        raise RunError(f"{results}: must be a folder of recorded runs; there is none below it")
    found = {}
    for run in tqdm(runs, desc="verify", unit="run", disable=not progress, dynamic_ncols=True):
        try:
            if sealing and run.complete and run.sums is None and not unreadable(run):
                seal(run.path)
            wrong = faults(run)
        except (RunError, OSError) as error:
            wrong = [str(error)]
        if wrong:
            found[run.path] = wrong
    return found


def faults(run: Run) -> list[str]:
    """What is wrong with a run: files that are damaged, gone or not listed. An unfinished run is sound."""
    sums = run.sums
    if not run.complete:
        going_on = any(run.path.glob("checkpoint*.pt")) or (run.path / AGAIN).exists()
        return [f"{run.path / 'metrics.json'} is gone"] if sums is not None and not going_on else []
    if sums is None:
        return unreadable(run) or [f"{run.path} has no {SUMS}: it was recorded by an earlier version, or it is gone"]
    there = {path.name for path in run.path.iterdir() if is_recorded(path)}
    wrong = [f"{run.path / name} is gone" for name in sorted(sums.keys() - there)]
    wrong += [f"{run.path / name} is not listed in {SUMS}" for name in sorted(there - sums.keys())]
    changed = [name for name in sorted(there & sums.keys()) if sha256(run.path / name) != sums[name]]
    wrong += [f"{run.path / name} is damaged" for name in changed]
    weights = run.path / "weights.pt"
    if not wrong and weights.exists() and sha256(weights) != run.metrics["weights_sha256"]:
        wrong.append(f"{weights} is damaged or of another run")
    return wrong


def unreadable(run: Run) -> list[str]:
    """What is missing or cannot be read of a complete run, whatever its hashes say."""
    config = run.config
    needed = [*ALWAYS, *(["measures.npz"] if config.method != "teacher" else [])]
    needed += ["indices.npz"] * bool(config.train_subset or config.train_fraction < 1 or config.label_noise)
    wrong = [f"{run.path / name} is gone" for name in needed if not (run.path / name).exists()]
    for name, part in READERS.items():
        try:
            if run.has(name):
                getattr(run, part)
        except RunError as error:
            wrong.append(str(error))
    if not wrong and len(run.history) != run.metrics["epochs"]:
        wrong.append(f"{run.path / 'history.csv'} has {len(run.history)} epochs, metrics.json {run.metrics['epochs']}")
    return wrong
