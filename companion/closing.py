"""How a page of the book ends: the commands that make it again, and which runs, commit, seeds and hardware made it."""

import contextlib
import html
import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from sastc.config import RunConfig
from sastc.experiments import Experiment
from sastc.labels import LABELS, SCALE_LABELS, shown
from sastc.records import Run, run_path

COPY = "JPEG copy"  # in the name of such data


def recorded(configs: Iterable[RunConfig], results: str | Path = "results") -> list[Run | None]:
    """The complete run of each config, as pages may show it: ``None`` if it is not run, or :func:`retired`.

    Pages find their runs by this and :func:`runs_of` alone.
    """
    runs = [Run(run_path(config, results)) for config in configs]
    kept = {run.path for run in shown_of(runs)}
    return [run if run.path in kept else None for run in runs]


def runs_of(experiment: Experiment, results: str | Path = "results") -> list[Run]:
    """The experiment's runs, recorded or not, but without those that :func:`retired` names."""
    runs = [Run(run_path(config, results)) for config in experiment.runs]
    old = retired(runs)
    return [run for run in runs if run.path not in old]


def shown_of(runs: Sequence[Run]) -> list[Run]:
    """The complete ones of the runs, without those that :func:`retired` names."""
    old = retired(runs)
    return [run for run in runs if run.complete and run.path not in old]


def retired(runs: Sequence[Run]) -> set[Path]:
    """Folders of those `runs` that no page shows: on the JPEG copy of a dataset, where the original has a run, too.

    One run on the original is enough, of any experiment at the same scale with the same `train_subset`: so no two pages
    of one scale show both. Others have other networks or other numbers of images, and stand apart on every page.
    """
    done = [run for run in runs if run.complete and (run.path / "provenance.json").is_file()]
    copies = [run for run in done if COPY in run.provenance.get("data", {}).get("name", "")]
    places = {run.path: (run.path.parent, run.name.partition("-")[0]) for run in copies}
    original = {place: _originals(*place) for place in set(places.values())}
    return {run.path for run in copies if run.config.train_subset in original[places[run.path]]}


def _originals(scale: Path, dataset: str) -> set[int]:
    """`train_subset` of the complete runs of a scale on the dataset itself; damaged ones, shown nowhere, are none."""
    found = set()
    for metrics in scale.glob(f"{dataset}-*/metrics.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            facts = json.loads(metrics.with_name("provenance.json").read_text(encoding="utf-8"))
            if COPY not in facts["data"]["name"]:
                found.add(json.loads(metrics.with_name("config.json").read_text(encoding="utf-8"))["train_subset"])
    return found


def data_name(config: RunConfig, run: Run | None) -> str:
    """What a run says of its data, such as ``CIFAR-10 (JPEG copy)``; the dataset's name where it says nothing."""
    facts = run.provenance if run and run.has("provenance.json") else {}
    return facts.get("data", {}).get("name", LABELS[config.dataset])


def data_names(runs: Iterable[Run]) -> list[str]:
    """What the complete ones of the runs say of their data, each once: ``CIFAR-10 (JPEG copy)``."""
    done = [run for run in runs if run.complete and run.has("provenance.json")]
    return list(dict.fromkeys(run.provenance["data"]["name"] for run in done))


def footer(runs: Sequence[Run], command: str, left_out: int = 0) -> str:
    """HTML footer of a results page: which runs, commit, seeds, hardware, and the command that makes the page.

    `left_out` is the number of runs that are :func:`retired`, which `runs` does not hold.
    """
    done = [run for run in runs if run.complete]
    facts = [run.provenance for run in done]
    diverged = sum(run.diverged is not None for run in runs if not run.complete)  # such a run was run

    def distinct(values) -> str:
        return html.escape(", ".join(sorted({str(v) for v in values})) or "–")

    rows = {
        "Runs": f"{len(done)} recorded, "
        + f"{diverged} diverged, " * bool(diverged)
        + f"{len(runs) - len(done) - diverged} not run",
        "Not shown": f"{left_out} on a {COPY}, since runs on the original are recorded" if left_out else "",
        "Data": distinct(f["data"]["name"] for f in facts),
        "Scale": distinct(SCALE_LABELS[r.config.scale] for r in done),
        "Variant": distinct(r.config.variant for r in done),
        "Differences from the paper": _scaled(done),
        "Seeds": distinct(r.config.seed for r in done),
        "Commit": distinct((f["commit"] or "unknown")[:10] + (" with changes" if f["dirty"] else "") for f in facts),
        "Hardware": distinct(f"{f['device']}, {f['threads']} thread{'s' * (f['threads'] > 1)}" for f in facts),
        "Versions": distinct(f"torch {f['versions']['torch']}, Python {f['python']}" for f in facts),
        "Command": f"<code>{html.escape(command)}</code>",
    }
    return facts_list({name: value for name, value in rows.items() if value})


def _scaled(runs: Sequence[Run]) -> str:
    """HTML of the settings in which the runs differ from the same at the paper's scale, with the values there."""
    found: dict[str, tuple[set, set]] = {}
    for run in runs:
        for name, pair in run.config.scaled.items():
            for values, value in zip(found.setdefault(name, (set(), set())), pair, strict=True):
                values.add(value)
    listed = {name: [", ".join(map(shown, sorted(values))) for values in both] for name, both in found.items()}
    return "; ".join(f"{name} = {ours} (paper {papers})" for name, (ours, papers) in listed.items())


def rerun_box(run: Run, notebook: str) -> str:
    """HTML box with the commands that make a run's page again, ready to be changed."""
    settings = run.config.arguments
    checked = f"python workflow/execute.py {shlex.join([notebook, *settings])}"
    words = "Run this notebook again, with other values if you like", "or with every parameter checked before it starts"
    return _box(dict(zip(words, (_papermill(notebook, settings), checked), strict=True)), "../../")


def closing(
    plan: Experiment, changes: dict | None = None, results: str | Path = "results", runs: Sequence[Run] | None = None
) -> str:
    """HTML end of a page of results: the commands that make it again, then the footer of its runs.

    `changes` are settings that override the experiment's; `runs` are the plan's by default.
    """
    settings = [f"experiment={plan.name}", f"scale={plan.scale}"]
    settings += [f"results={results}"] if str(results) != "results" else []
    settings += [f"changes={json.dumps(changes)}"] if changes else []
    words = plan.command.split()  # settings go before the options, of which the last takes all that follows
    words[2:2] = [f"{name}={value}" for name, value in (changes or {}).items()]
    command = shlex.join(words)
    draw = _papermill(plan.notebook, settings)
    if not plan.needs_runs:
        facts = {"Runs": "none needed", "Command": f"<code>{html.escape(command)}</code>"}
        return _box({"Draw this page again": draw}, "../") + facts_list(facts)
    train = "Train what is missing, then draw it; settings for all runs, such as epochs=2, go before the options"
    box = _box({"Draw this page again from recorded runs": draw, train: command}, "../")
    runs = [Run(run_path(config, results)) for config in plan.runs] if runs is None else runs
    old = retired(runs)
    return box + footer([run for run in runs if run.path not in old], command, len(old))


def _papermill(notebook: str, settings: Sequence[str]) -> str:
    """The command; papermill reads lists and mappings from YAML only."""
    words = ["papermill", f"notebooks/{notebook}.ipynb", "own.ipynb", "--cwd", "."]
    for name, value in (setting.split("=", 1) for setting in settings):
        words += ["-y", f"{name}: {value}"] if value[:1] in ("[", "{") else ["-p", name, value]
    return shlex.join(words)


def _box(commands: dict[str, str], root: str) -> str:
    """Commands by what they do; `root` leads from the page to the book's front page."""
    lines = "".join(
        f'<p>{words}:</p><div class="highlight"><pre>{html.escape(command)}</pre></div>'
        for words, command in commands.items()
    )
    links = f'<a href="{root}rerun.html">How to rerun</a> · <a href="{root}config.html">every setting</a>'
    return f'<div class="rerun">{lines}<p>{links}</p></div>'


def facts_list(facts: dict[str, str]) -> str:
    """HTML list of names and what they are."""
    return f'<dl class="footer">{"".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items())}</dl>'
