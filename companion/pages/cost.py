"""What the paper's tables cost in operations and GPU-hours: computed from the networks, not measured."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from companion import report
from companion.pages import parts
from companion.sizing import run_flops, step_memory
from sastc.config import EVENT_DATASETS, RunConfig, read_yaml
from sastc.experiments import load_experiment
from sastc.labels import LABELS

# Dense bf16 FLOP/s with fp32 accumulation, from the vendor's data sheets.
PEAKS = {"H200": 989e12, "A100": 312e12, "RTX 4090": 165e12}
IMAGENET = dict(dataset="imagenet", teacher="resnet34", method="sastc", timesteps=4, scale="paper")
# Ways to run one step of IMAGENET's batch of 256.
PLANS = (
    dict(student="resnet18", checkpoint="none"),
    dict(student="resnet18", checkpoint="blocks"),
    dict(student="resnet18", checkpoint="blocks", accumulate=4),
    dict(student="resnet18", checkpoint="blocks", precision="bf16", memory_format="channels_last"),
    dict(student="resnet34", checkpoint="none"),
    dict(student="resnet34", checkpoint="blocks"),
)


def runs(folder: str | Path = report.ROOT / "experiments", scale: str = "paper") -> pd.DataFrame:
    """One row for each run of each experiment at a scale, teachers included: ``flops``, and the paper's ``seconds``.

    A run that several experiments ask for has several rows with one ``identity``. Files that only read the runs of
    others have none.
    """
    rows, known = [], {}
    for path in sorted(Path(folder).glob("*.yaml")):
        if scale not in read_yaml(path.read_text(encoding="utf-8")):
            continue
        plan = load_experiment(path, scale)
        for config in (*plan.teachers, *plan.runs):
            if config not in known:
                found = dict(identity=config.identity, method=config.method, dataset=config.dataset)
                found["flops"] = float(run_flops(config))  # beyond 64-bit integers
                known[config] = found | dict(seconds=paper_seconds(config))
            rows.append(dict(experiment=plan.name, title=plan.title) | known[config])
    return pd.DataFrame(rows)


def paper_seconds(config: RunConfig) -> float:
    """Seconds of a run's training by the paper's time of an epoch; ``nan`` where it gives none.

    The unit of its CIFAR table (seconds) is assumed, as is that its ImageNet times are those of an epoch.
    """
    teacher = config.teacher if config.method != "baseline" and config.dataset != "imagenet" else ""
    names = [LABELS.get(name, "") for name in (config.dataset, config.student, teacher)]
    seconds = _seconds_an_epoch().get((*names, config.method, config.timesteps), float("nan"))
    return config.epochs * config.train_fraction * seconds


@functools.cache
def _seconds_an_epoch() -> dict[tuple, float]:
    """By dataset, student, teacher ('' of a baseline, and on ImageNet), method and T."""
    cifar = parts.paper("training_time_cifar").rename(columns={"seconds_per_epoch": "seconds"})
    net = parts.paper("training_time_imagenet").rename(columns={"architecture": "student"})
    net = net.assign(teacher="", seconds=3600 * net.time)
    both = pd.concat([cifar, net]).query("phase == 'train'")
    return both.set_index(["dataset", "student", "teacher", "method", "timesteps"]).seconds.to_dict()


def by_experiment(every: pd.DataFrame, share: float, peaks: Mapping[str, float] = PEAKS) -> pd.DataFrame:
    """One row an experiment and one for all together, in which a run that several ask for counts once.

    Columns: runs, operations in ``exaflop`` (1e18), hours at `share` of each peak, and ``paper``: the hours by the
    paper's own times, with ``paper_runs``, for how many runs it gives one.
    """
    groups = [(title, rows) for title, rows in every.groupby("title", sort=False)]
    rows = []
    for title, group in [*groups, ("all of them, each run once", every.drop_duplicates("identity"))]:
        flops = group.flops.sum()
        row = dict(title=title, runs=len(group), exaflop=flops / 1e18)
        row |= {name: flops / (share * peak) / 3600 for name, peak in peaks.items()}
        rows.append(row | dict(paper=group.seconds.sum() / 3600, paper_runs=int(group.seconds.notna().sum())))
    return pd.DataFrame(rows)


def table(costs: pd.DataFrame, share: float, peaks: Mapping[str, float] = PEAKS) -> str:
    """HTML table of :func:`by_experiment`."""
    columns = {
        "runs of": lambda r: r.title,
        "runs, teachers included": "runs",
        "operations (10¹⁸)": lambda r: f"{r.exaflop:,.1f}",
        **{f"hours, {name}": lambda r, i=i: _hours(r[i]) for i, name in enumerate(peaks, 3)},
        "hours by the paper's times": lambda r: f"{_hours(r.paper)} ({r.paper_runs} runs)" if r.paper_runs else "–",
    }
    caption = (
        f"Computed, not measured: operations of matrix products and convolutions at {100 * share:.0f} % of a dense "
        "bf16 peak, and the paper's own times of an epoch, on its GPUs, where it gives them."
    )
    return parts.table(costs, caption, "cost", columns)


def _hours(value: float) -> str:
    return f"{value:,.0f}" if value >= 9.5 else f"{value:.1f}"


def memory(plans: Sequence[Mapping[str, Any]] = PLANS) -> pd.DataFrame:
    """Memory in GiB of one SASTC step on ImageNet in several ways: see :class:`companion.sizing.Memory`."""
    rows = []
    for plan in plans:
        config = RunConfig(**IMAGENET | plan)
        fields = {name: getattr(config, name) for name in ("student", "precision", "checkpoint", "accumulate")}
        rows.append(fields | {name: nbytes / 2**30 for name, nbytes in vars(step_memory(config)).items()})
    return pd.DataFrame(rows)


def memory_table(sizes: pd.DataFrame, card: float = 24.0) -> str:
    """HTML table of :func:`memory`, with what fits a card of so many GiB."""
    columns = {
        "student": lambda r: LABELS[r.student],
        "precision": "precision",
        "checkpoint": "checkpoint",
        "accumulate": "accumulate",
        "weights, gradients, optimiser, teacher (GiB)": lambda r: (
            f"{r.weights + r.gradients + r.optimizer + r.teacher:.2f}"
        ),
        "kept by a forward pass (GiB)": lambda r: f"{r.kept:.1f}",
        "peak (GiB)": lambda r: f"{r.peak:.1f}",
        f"below {card:g} GiB": lambda r: "yes" if r.peak < card else "no",
    }
    caption = "Computed, not measured: tensors of one SASTC step on ImageNet, batch 256, T = 4, ResNet-34 teacher."
    return parts.table(sizes, caption, "cost-memory", columns)


def sentences(every: pd.DataFrame, share: float, peaks: Mapping[str, float] = PEAKS) -> list[str]:
    """What came out, computed."""
    whole, once = by_experiment(every, share, peaks).iloc[-1], every.drop_duplicates("identity")
    name, peak = next(iter(peaks.items()))

    def days(flops: float) -> str:
        return _hours(flops / (share * peak) / 86400)

    def part(rows: pd.DataFrame) -> str:
        return f"{100 * rows.flops.sum() / once.flops.sum():.0f} %"

    timed = once[once.seconds.notna()]
    return [
        f"The paper's scale takes {whole.runs:,} runs for all pages, each counted once: {whole.exaflop:,.0f}·10¹⁸ "
        f"operations, or at least {days(once.flops.sum())} days of one {name}, computed and not measured: bf16 at "
        f"{100 * share:.0f} % of its peak. The scale's own arithmetic, tf32, takes up to twice as long.",
        f"For {len(timed)} of them the paper gives the time of an epoch: {_hours(timed.seconds.sum() / 86400)} days on "
        f"its GPUs. The operations of the same runs are {days(timed.flops.sum())} days of one {name}.",
        f"Of all operations, {part(once[once.dataset == 'imagenet'])} are ImageNet's and "
        f"{part(once[once.dataset.isin(EVENT_DATASETS)])} those of event data; {part(once[once.method == 'teacher'])} "
        "train teachers.",
    ]
