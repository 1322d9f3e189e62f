"""What the workflow has to do: the notebooks of all experiments at one scale, with their parameters and inputs."""

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

from companion.closing import retired
from sastc.config import SCALES, ConfigError, RunConfig
from sastc.experiments import check_choice, load_experiment
from sastc.labels import title_of
from sastc.records import Run, run_path, sha256

ROOT = Path(__file__).parents[1]
# Rough guesses of seconds of one core; only their ratios matter for the time left.
NOTEBOOK_SECONDS = 3.0  # a notebook without its training
PAGE_SECONDS = 5.0  # a page of results
RECORD_SECONDS = 0.01  # more for each recorded run that a page shows
EPOCH_SECONDS = {"teacher": 0.6, "baseline": 1.0, "kd": 1.3, "feature_kd": 1.8, "sastc": 2.5}  # an epoch at T = 2
SHOWN = {  # parameters that an executed notebook shows even where they are the default
    "teacher": {"dataset", "teacher", "scale", "seed"},
    "combination": {"dataset", "student", "teacher", "method", "timesteps", "variant", "scale", "seed"},
}


@dataclasses.dataclass(frozen=True)
class Job:
    """One notebook to execute."""

    notebook: str  # source, notebooks/<notebook>.ipynb
    name: str  # executed notebook, <folder>/<name>.ipynb
    title: str
    parameters: dict[str, Any]
    needs: tuple[str, ...] = ()  # names of the executed notebooks that come first
    config: RunConfig | None = None  # of a training
    record: tuple[str, ...] = ()  # files of recorded runs whose change makes a page old

    @property
    def digest(self) -> str | None:
        """File that stands for all of `record`, so that the engine looks at one file and not at hundreds."""
        if not self.record:
            return None
        names = hashlib.sha256("\n".join(self.record).encode()).hexdigest()[:10]  # another set is another file
        return f"results/.workflow/records/{self.name}-{names}.txt"

    @property
    def cost(self) -> float:
        """Seconds of one core, guessed, from which the launcher estimates the time left."""
        if self.config is None:
            return PAGE_SECONDS + RECORD_SECONDS * len(self.record)
        steps = 1 if self.config.method == "teacher" else self.config.timesteps / 2
        return NOTEBOOK_SECONDS + EPOCH_SECONDS[self.config.method] * steps * self.config.epochs


def make_plan(scale: str, changes: dict[str, Any], only: tuple[str, ...], results: str, data: str) -> dict[str, Job]:
    """All jobs by name, every input before what needs it.

    The runs of `scale` are trained. The quick plan also has the pages that an experiment names as `of_record`: what is
    complete below `results` at another scale is shown, and nothing of it is trained or executed run by run. With
    `one_page` there is one page for all.

    Raises
    ------
    ConfigError
        A file of experiments is wrong, or one that `only` names is missing or has nothing to do at this scale.
    """
    files = {path.stem: path for path in sorted((ROOT / "experiments").glob("*.yaml"))}
    for name in only:
        check_choice("experiment", name, files)
    jobs: dict[str, Job] = {}
    paths = {"results": results, "data": data}
    others = [other for other in SCALES if other != scale] if scale == "quick" and not changes else []
    for shown in (scale, *others):
        for path in files.values():
            if only and path.stem not in only:
                continue
            experiment = load_experiment(path, shown, changes)
            if not (ROOT / "notebooks" / f"{experiment.notebook}.ipynb").exists():
                raise ConfigError(f"{path}: notebook={experiment.notebook!r}: is not below notebooks/")
            if shown != scale and shown not in experiment.of_record:
                continue
            if shown == "quick" and not experiment.quick_page:
                continue
            runs = [*experiment.teachers, *experiment.runs]
            if shown != scale:
                recorded = {config.name: Run(run_path(config, results)) for config in runs}
                old = retired(list(recorded.values()))
                runs = [c for c in runs if (run := recorded[c.name]).complete and run.path not in old]
            for config in runs:
                if shown == scale:
                    jobs.setdefault(config.name, training(config, paths))
            if runs or (shown == scale and not experiment.needs_runs):
                name = path.stem if shown == "quick" else f"{path.stem}_{shown}"
                parameters = {"experiment": path.stem, "scale": shown, "changes": changes, **paths}
                needs = tuple(config.name for config in runs) if shown == scale else ()
                record = () if needs else tuple(str(run_path(config, results) / "metrics.json") for config in runs)
                if shown != scale and experiment.one_page:
                    own = jobs.pop(path.stem)  # it comes after what it needs
                    jobs[path.stem] = dataclasses.replace(own, record=own.record + record)
                    continue
                alone = experiment.one_page or {config.dataset for config in experiment.runs} != {"digits"}
                title = experiment.title if alone or shown != "quick" else f"{experiment.title}, on digits"
                jobs[name] = Job(experiment.notebook, name, title, parameters, needs, record=record)
    for name in only:
        if not any(job.parameters.get("experiment") == name for job in jobs.values()):
            raise ConfigError(f"{name} has no runs at scale {scale}: experiments/{name}.yaml lists none")
    return jobs


def write_digests(jobs: dict[str, Job]) -> None:
    """Bring the files up to date that stand for recorded runs; each is as old as the newest run that it stands for."""
    found: dict[str, tuple[str, int]] = {}
    for job in jobs.values():
        if job.digest is None:
            continue
        for path in job.record:
            if path not in found:
                found[path] = sha256(ROOT / path), (ROOT / path).stat().st_mtime_ns
        digest = ROOT / job.digest
        digest.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{found[path][0]} {path}\n" for path in job.record)
        if not digest.exists() or digest.read_text() != text:
            digest.write_text(text)
        newest = max(found[path][1] for path in job.record)
        os.utime(digest, ns=(newest, newest))


def training(config: RunConfig, paths: dict[str, str]) -> Job:
    """The notebook that trains one teacher or student."""
    teacher = config.teacher_config()
    notebook = "teacher" if config.method == "teacher" else "combination"
    names = {argument.split("=")[0] for argument in config.arguments} | SHOWN[notebook]
    parameters = {name: value for name, value in config.to_dict().items() if name in names} | paths
    needs = (teacher.name,) if teacher else ()
    return Job(notebook, f"{notebook}/{config.name}", title_of(config), parameters, needs, config)


def seconds_left(done: float, total: float, begun: float, elapsed: float) -> float:
    """Time left by the mean pace since the start, when `begun` was done already; infinite before anything is done.

    The mean, because the last minutes say little: one long training may end, or ten short ones.
    """
    return (total - done) * elapsed / (done - begun) if done > begun else float("inf")


def progress(jobs: dict[str, Job], folder: Path, results: Path) -> tuple[float, float]:
    """Work done and work in all; a training counts by its finished epochs."""
    done = 0.0
    for job in jobs.values():
        if (folder / f"{job.name}.ipynb").exists():
            done += job.cost
        elif job.config is not None:
            history = run_path(job.config, results) / "history.csv"
            if Run(history.parent).complete:
                done += 0.95 * job.cost
            elif history.exists():
                done += 0.9 * job.cost * history.read_text().count("\n") / (job.config.epochs + 1)
    return done, sum(job.cost for job in jobs.values())
