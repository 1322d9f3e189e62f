"""Recorded runs many times over: copies with other seeds, whole and sealed."""

import os
from collections.abc import Sequence
from pathlib import Path

from sastc.records import SUMS, Run, json_bytes, run_path, seal, write_config


def copy_runs(runs: Sequence[Run], results: Path, times: int) -> list[Run]:
    """So many copies of each run below `results`, by seeds far from recorded ones; files that are equal are links."""
    made = []
    for run in runs:
        for number in range(times):
            config = run.config.replace(seed=10_000 + 100 * number + run.config.seed)
            folder = run_path(config, results)
            folder.mkdir(parents=True)
            for path in run.path.iterdir():
                if path.is_file() and path.suffix != ".pt" and path.name not in ("config.json", "metrics.json", SUMS):
                    (folder / path.name).symlink_to(os.path.abspath(path))
            write_config(folder, config)
            seal(folder, "metrics.json", json_bytes(run.metrics))
            made.append(Run(folder))
    return made
