"""What a recorded run belongs to: pages that list it, runs that differ from it in one thing, its files' addresses."""

import functools
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from sastc.config import SCALES
from sastc.experiments import Experiment, load_experiment
from sastc.labels import method_label
from sastc.records import Run

ROOT = Path(__file__).parents[2]
PAGE = re.compile(rf"runs/(\w+?)(?:_({'|'.join(SCALES)}))?")
SEEDS = ("seed", "teacher_seed")
WHAT = ("dataset", "scale", "student", "teacher", "timesteps", "variant", *SEEDS)  # the cell of a table


def used_in(docs: Iterable[str]) -> dict[str, list[str]]:
    """By run, the pages of results among `docs` whose experiments list it, or a student of it."""
    pages: dict[str, list[str]] = defaultdict(list)
    for doc in sorted(docs):
        match = PAGE.fullmatch(doc)
        path = ROOT / "experiments" / f"{match[1]}.yaml" if match else None
        if path is None or not path.is_file():
            continue
        plan = load_experiment(path, match[2] or "quick")
        plans = [plan, *(load_experiment(path, scale) for scale in plan.of_record if plan.one_page)]
        for name in dict.fromkeys(name for plan in plans for name in _names(plan)):
            pages[name].append(doc)
    return dict(pages)


def _names(plan: Experiment) -> Iterable[str]:
    """Of the explorer's, those with attention; it shows no others."""
    configs = (*plan.runs, *plan.teachers)
    return (config.name for config in configs if plan.notebook != "explorer" or config.method == "sastc")


def siblings(runs: Sequence[Run]) -> dict[str, dict[str, list[tuple[str, str]]]]:
    """By run, ``(words, name)`` of those with another seed, and of those of another method in the same cell.

    A run of another method is one with the same settings, as far as both have them; what it has beside them is at its
    preset.
    """
    known = [(run.name, run.config) for run in runs]
    places = {run.name: (run.path.parent, run.provenance["data"]["name"]) for run in runs}
    values = {name: config.to_dict(relevant=True) for name, config in known}
    changed = {name: config.changed for name, config in known}
    by_seed, by_cell = defaultdict(list), defaultdict(list)
    for name, config in known:
        mine = values[name]
        by_seed[places[name], str({n: v for n, v in mine.items() if n not in SEEDS})].append((name, config))
        if config.method != "teacher":
            by_cell[places[name], str({n: mine.get(n) for n in WHAT})].append((name, config))

    def differ_in_method(one: str, other: str) -> bool:
        shared = values[one].keys() & values[other].keys()
        same = all(changed[one].get(name) == changed[other].get(name) for name in shared)
        return same and changed[other].keys() <= shared

    found: dict[str, dict[str, list[tuple[str, str]]]] = defaultdict(lambda: {"seeds": [], "methods": []})
    for group in by_seed.values():
        for name, _ in group:
            found[name]["seeds"] = [(str(config.seed), other) for other, config in group if other != name]
    for group in by_cell.values():
        for name, own in group:
            found[name]["methods"] = [
                (method_label(config), other)
                for other, config in group
                if config.method != own.method and differ_in_method(name, other)
            ]
    return dict(found)


def tracked() -> frozenset[str]:
    """Files below ``results/`` that git has, from the root; none where there is no git."""
    try:
        done = subprocess.run(["git", "ls-files", "-z", "results"], cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return frozenset()
    return frozenset(done.stdout.decode().split("\0"))


@functools.cache
def _by_folder(files: frozenset[str]) -> dict[str, list[str]]:
    """Names of files by their folder: one look at all of them, not one a run."""
    found: dict[str, list[str]] = defaultdict(list)
    for file in files:
        folder, _, name = file.rpartition("/")
        found[folder].append(name)
    return dict(found)


def addresses(run: Run, files: frozenset[str], repository: str, branch: str) -> dict[str, str]:
    """Where the files of a run can be fetched, by name, and under ``""`` its folder; none that git does not have."""
    path = run.path.resolve()
    folder = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else None
    names = _by_folder(files).get(folder, [])
    if not names or not repository:
        return {}
    found = {"": f"{repository}/tree/{branch}/{folder}"}
    return found | {name: f"{repository}/raw/{branch}/{folder}/{name}" for name in sorted(names)}
