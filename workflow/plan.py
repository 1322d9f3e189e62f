"""What the workflow has to do: the notebooks of all experiments at one scale, with their parameters and inputs."""

import ast
import dataclasses
import functools
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from companion.closing import recorded
from sastc.config import CODE, EVENT_DATASETS, SCALES, ConfigError, RunConfig
from sastc.experiments import check_choice, load_experiment
from sastc.labels import SCALE_LABELS, title_of
from sastc.records import DIVERGED, Run, run_path, sha256
from sastc.references import file_of, is_reference

ROOT = Path(__file__).parents[1]
DRAWING = ("companion", "benchmarks")  # packages whose modules draw pages
EXPLORER = "sastc/explorer"  # and the part of the library that does
# Rough guesses of seconds of one core; only their ratios matter for the time left.
NOTEBOOK_SECONDS = 3.0  # a notebook without its training
PAGE_SECONDS = 5.0  # a page of results
RECORD_SECONDS = 0.01  # more for each recorded run that a page shows
BOOK_PAGE_SECONDS = 0.5  # of the book, which one process builds when all else is done
EPOCH_SECONDS = {"teacher": 0.7, "kd": 0.65}  # an epoch at T = 2; other methods know their cost relative to KD's
PROCESS_BYTES = 10**9  # of a process that trains, without images and tensors: measured 0.6 GiB, rounded up
TENSORS = 2  # memory of a step over that of its tensors: an allocator's gaps, a library's workspaces
PHOTOGRAPHS = ("imagenet", "imagefolder")
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
    code: tuple[str, ...] = ()  # files of methods and networks of a user's own
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
        kind = self.config.method_class
        seconds = EPOCH_SECONDS["kd"] * kind.cost * self.config.timesteps / 2 if kind else EPOCH_SECONDS["teacher"]
        return NOTEBOOK_SECONDS + seconds * self.config.epochs


def make_plan(scale: str, changes: dict[str, Any], only: tuple[str, ...], results: str, data: str) -> dict[str, Job]:
    """All jobs by name, every input before what needs it.

    The runs of `scale` are trained. The quick plan also has the pages that an experiment names as `of_record`: what is
    complete below `results` at another scale is shown, and nothing of it is trained or executed run by run. With
    `one_page` there is one page for all. A method that joins an experiment's is trained beside all others at the quick
    scale, and beside KD at larger ones, where the others take hours.

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
        experiments = []
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
            if experiment.joined and scale != "quick":  # what others have trained is shown where it is recorded
                few = [c for c in experiment.runs if c.method in (experiment.joined, "kd") and not c.validation]
                epochs = {config.epochs for config in few if config.method == experiment.joined}
                few = [config for config in few if config.epochs in epochs]
                experiment = dataclasses.replace(experiment, runs=tuple(few))
            experiments.append((path, experiment, [*experiment.teachers, *experiment.runs]))
        if shown != scale:  # asked once for all: pages share runs
            every = {config.name: config for _, _, runs in experiments for config in runs}
            found = {name for name, run in zip(every, recorded(every.values(), results), strict=True) if run}
        for path, experiment, runs in experiments:
            if shown != scale:
                runs = [config for config in runs if config.name in found]
            for config in runs:
                if shown == scale and config.name not in jobs:
                    jobs[config.name] = training(config, paths)
            if runs or (shown == scale and not experiment.needs_runs):
                name = path.stem if shown == "quick" else f"{path.stem}_{shown}"
                parameters = {"experiment": path.stem, "scale": shown, "changes": changes, **paths}
                needs = tuple(config.name for config in runs) if shown == scale else ()
                record = () if needs else _results([*runs, *experiment.runs], results, {config.name for config in runs})
                if record and experiment.every_scale:
                    larger = [s for s in SCALES if s not in ("quick", shown)]
                    more = [config for s in larger for config in load_experiment(path, s, changes).runs]
                    known = zip(more, recorded(more, results), strict=True)
                    record += _results(more, results, {config.name for config, run in known if run})
                if shown != scale and experiment.one_page:
                    own = jobs.pop(path.stem)  # it comes after what it needs
                    jobs[path.stem] = dataclasses.replace(own, record=own.record + record)
                    continue
                alone = experiment.one_page or {config.dataset for config in experiment.runs} != {"digits"}
                title = experiment.title if alone or shown != "quick" else f"{experiment.title}, on digits"
                if not experiment.one_page and shown in experiment.of_record:
                    largest = max(experiment.of_record, key=SCALES.index)
                    title += f", {SCALE_LABELS[shown]}" * (shown != largest)
                jobs[name] = Job(experiment.notebook, name, title, parameters, needs, record=record)
    for name in only:
        if not any(job.parameters.get("experiment") == name for job in jobs.values()):
            raise ConfigError(f"{name} has no runs at scale {scale}: experiments/{name}.yaml lists none")
    return jobs


def _results(configs: Iterable[RunConfig], results: str, shown: set[str]) -> tuple[str, ...]:
    """The files whose change makes a page old: metrics of the runs that are shown, and the end of diverged ones."""
    paths = {config.name: run_path(config, results) for config in configs}
    ends = ((path / "metrics.json" if name in shown else path / DIVERGED) for name, path in paths.items())
    return tuple(str(path) for path in ends if (ROOT / path).is_file())


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


@functools.cache
def drawn_from(notebook: str, root: Path = ROOT) -> tuple[str, ...]:
    """Files besides the notebook itself whose change makes its pages old, relative to `root`.

    They are read from the source, of which nothing is executed: modules of ``companion/`` and ``benchmarks/`` that the
    notebook imports, itself or through others, also inside a function; tables of ``paper/`` whose name is a text in any
    of them; the explorer, where it is used. The library is not among them: a change there draws no page again.
    """
    cells = json.loads((root / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    tables = {path.stem: path for path in (root / "paper").glob("*.csv")}
    found: set[Path] = set()
    ahead = [_names("".join(cell["source"]), ()) for cell in cells if cell["cell_type"] == "code"]
    while ahead:
        names, texts = ahead.pop()
        for path in {file for name in names for file in _modules(name, root)} - found:
            found.add(path)
            ahead.append(_names(path.read_text(encoding="utf-8"), path.parent.relative_to(root).parts))
        if any(name.startswith("sastc.explore") for name in names):
            found |= {path for path in (root / EXPLORER).glob("*") if path.is_file()}
        found |= {tables[stem] for text in texts if (stem := text.removesuffix(".csv")) in tables}
    return tuple(sorted(path.relative_to(root).as_posix() for path in found))


@functools.cache
def _names(source: str, package: tuple[str, ...]) -> tuple[set[str], set[str]]:
    """Dotted names that code of a package imports, or takes from ``sastc`` by a dot, and all its texts.

    Some of the names are no modules. A cell that is no Python, such as a command of IPython, has none: one that is
    wrong says so when it is executed.
    """
    names, texts = set(), set()
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return names, texts
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                names |= {alias.name for alias in node.names}
            case ast.ImportFrom():
                above = package[: len(package) + 1 - node.level] if node.level else ()
                base = ".".join((*above, *filter(None, [node.module])))
                names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
            case ast.Attribute(value=ast.Name(id="sastc")):
                names.add(f"sastc.{node.attr}")
            case ast.Constant(value=str()):
                texts.add(node.value)
    return names, texts


@functools.cache
def _modules(name: str, root: Path) -> list[Path]:
    """Files that are executed when a name is imported: its module, and the packages around it."""
    parts = name.split(".")
    if parts[0] not in DRAWING:
        return []
    places = [root.joinpath(*parts[:n]) for n in range(1, len(parts) + 1)]
    return [file for place in places for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file()]


def training(config: RunConfig, paths: dict[str, str]) -> Job:
    """The notebook that trains one teacher or student."""
    teacher = config.teacher_config()
    notebook = "teacher" if config.method == "teacher" else "combination"
    names = {argument.split("=")[0] for argument in config.arguments} | SHOWN[notebook]
    parameters = {name: value for name, value in config.to_dict().items() if name in names} | paths
    if config.method_class is not None and config.method_class.reference:
        parameters["method"] = config.method_class.reference
    parameters |= {role: own.reference for role, own in config.networks.items()}
    needs = (teacher.name,) if teacher else ()
    code = tuple(sorted({str(file_of(parameters[n])) for n in CODE if is_reference(parameters.get(n))}))
    return Job(notebook, f"{notebook}/{config.name}", title_of(config), parameters, needs, config, code)


def training_threads(jobs: dict[str, Job], cores: int, memory: int) -> dict[str, int]:
    """Threads of one training on the CPU, by its notebook, ``teacher`` or ``combination``.

    Runs side by side with one thread each train more images a second than one run with all threads: 392 against 321 on
    two cores with AVX512-bf16 (ResNet-19 as ANN, width 1/4, batch 128). So a run has more threads only where all
    planned runs, or all that fit into `memory` (bytes), are fewer than the cores. Threads change the last bits of a
    run: the whole plan decides, done or not, so that a plan that goes on, or makes one run again, does as before. Quick
    runs always have one thread, which gives the same numbers on every machine.
    """
    threads = {}
    for notebook in SHOWN:
        configs = [job.config for job in jobs.values() if job.notebook == notebook]
        threads[notebook] = 1
        if configs and cores > 1 and configs[0].scale != "quick":
            fit = memory // max(map(run_bytes, _largest(configs)))
            threads[notebook] = max(1, cores // len(configs), math.ceil(cores / max(1, fit)))
    return threads


def _largest(configs: list[RunConfig]) -> list[RunConfig]:
    """The config of each pair of networks whose step takes the most memory, as far as settings tell."""
    found: dict[tuple[str, str, str], RunConfig] = {}

    def size(config: RunConfig) -> tuple[float, float]:
        images = config.batch_size / config.accumulate * config.timesteps * config.image_size**2
        return images * config.width, config.method_class.cost if config.method_class else 0.0

    for config in configs:
        pair = config.dataset, config.student, config.teacher
        found[pair] = max(found.get(pair, config), config, key=size)
    return list(found.values())


def run_bytes(config: RunConfig) -> int:
    """Memory of a process that trains, guessed from its images and the tensors of a step, which takes seconds."""
    from companion.sizing import SIZES, step_memory

    usual = {role: RunConfig.fields()[role].default for role in config.networks}  # of one's own: as large, it is hoped
    config = config.replace(**usual)
    if config.dataset in PHOTOGRAPHS:  # read batch by batch
        return PROCESS_BYTES + TENSORS * step_memory(config.replace(dataset="imagenet")).peak
    train, test, channels, _ = SIZES[config.dataset]
    steps = config.timesteps if config.dataset in EVENT_DATASETS else 1
    images = (train + test) * steps * channels * config.image_size**2
    return PROCESS_BYTES + images + TENSORS * step_memory(config).peak


class Pace:
    """Time left by the mean pace since work began to show.

    The mean, because the last minutes say little: one long training may end, or ten short ones. The clock starts with
    the first work that shows, since an engine and imports take seconds that do not come again.
    """

    def __init__(self, done: float, total: float):
        self.done = self.first = done
        self.total = total
        self.started: float | None = None  # when work first showed

    def update(self, done: float, now: float) -> None:
        """Work done by a moment, in seconds of any clock."""
        if done < self.done:  # a page is deleted before it is drawn anew
            self.first += done - self.done
        elif done > self.done and self.started is None:
            self.first, self.started = done, now
        self.done = done

    def seconds_left(self, now: float) -> float:
        """Seconds from `now` to the end; infinite as long as there is no pace."""
        moved = self.done - self.first
        return (self.total - self.done) * (now - self.started) / moved if moved > 0 else float("inf")


def progress(jobs: dict[str, Job], folder: Path, results: Path) -> tuple[float, float]:
    """Work done and work in all; a training counts by its finished epochs."""
    done = 0.0
    for job in jobs.values():
        if (folder / f"{job.name}.ipynb").exists():
            done += job.cost
        elif job.config is not None:
            history = run_path(job.config, results) / "history.csv"
            if Run(history.parent).ended:
                done += 0.95 * job.cost
            elif history.exists():
                done += 0.9 * job.cost * history.read_text().count("\n") / (job.config.epochs + 1)
    return done, sum(job.cost for job in jobs.values())


def book_share(log: str) -> float:
    """How much of the book is built, from what Sphinx says of it in the engine's log: pages are read, then written."""
    said = re.findall(r"(reading sources|writing output)\.\.\. \[ *(\d+)%\]", log.rpartition("Running Jupyter-Book")[2])
    return (int(said[-1][1]) + 100 * (said[-1][0] == "writing output")) / 200 if said else 0.0
