"""Write ``results/jpeg_copy.csv``: the accuracies of all runs on a JPEG copy, which outlive their records.

``python workflow/retired.py [results]``. Rows of runs whose record is gone are kept.
"""

import sys
from pathlib import Path

import pandas as pd

from companion.closing import COPY
from sastc.records import list_runs

COLUMNS = ["scale", "run", "settings", "data", "accuracy", "last_accuracy", "best_accuracy", "stm", "commit"]


def rows(results: str | Path) -> pd.DataFrame:
    """One row a recorded run on a JPEG copy; `settings` are the arguments that make it."""
    found = []
    for run in list_runs(results):
        if not run.complete or COPY not in run.provenance["data"]["name"]:
            continue
        metrics, config, facts = run.metrics, run.config, run.provenance
        row = dict(scale=config.scale, run=run.name, settings=" ".join(config.arguments), data=facts["data"]["name"])
        row |= {name: metrics.get(name) for name in COLUMNS[4:8]}
        found.append(row | dict(commit=facts["commit"]))
    return pd.DataFrame(found, columns=COLUMNS)


def main(results: str | Path = "results") -> None:
    """Add the runs recorded below `results` to its table."""
    path, found = Path(results) / "jpeg_copy.csv", rows(results)
    if path.is_file():
        kept = pd.read_csv(path)
        found = pd.concat([kept[~kept.run.isin(found.run)], found])
    found.sort_values("run").to_csv(path, index=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
