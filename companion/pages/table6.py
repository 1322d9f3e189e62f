"""Table 6: event data. What the streams look like, and what students make of them as time steps arrive."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from companion import report
from companion.figures import COLOURS, MARKERS, ON_DARK, ON_LIGHT, SEQUENTIAL, SERIES, WIDTH, series
from companion.pages import parts
from companion.stats import difference, family, spread
from sastc.config import DISTIL, METHODS, RunConfig
from sastc.data.events import Events, event_rate
from sastc.experiments import Experiment
from sastc.labels import LABELS
from sastc.records import Run

ON, OFF = SERIES[3], SERIES[5]  # violet and brown, as in the maps of differences
TAUGHT = tuple(method for method in METHODS if method in DISTIL)
POLARITIES = ((1, ON, "ON"), (0, OFF, "OFF"))


# The streams


def stream_figure(image: np.ndarray, events: Events) -> Figure:
    """An image (H, W) or (H, W, 3), its event stream in space and time, and the rate of events."""
    figure = plt.figure(figsize=(WIDTH, 2.8))
    grid = figure.add_gridspec(1, 3, width_ratios=[0.8, 1.6, 1.4])
    still, space, rate = (figure.add_subplot(grid[k], projection="3d" if k == 1 else None) for k in range(3))
    still.imshow(image, cmap="gray")
    still.set(title="image", xticks=[], yticks=[])
    still.grid(False)
    for polarity, colour, name in POLARITIES:
        p = events.p == polarity
        options = dict(s=4 if len(events.t) > 2000 else 10, color=colour, linewidths=0, alpha=0.7, label=name)
        options |= dict(rasterized=True)  # thousands of marks: as vectors they are megabytes
        space.scatter(events.t[p] / 1e3, events.x[p], events.y[p], **options)
    space.set(xlabel="time (ms)", ylim=(0, events.width), yticks=[0, events.width], zticks=[0, events.height])
    space.set_zlim(events.height, 0)  # rows count from the top
    space.set_ylabel("column", labelpad=-6)
    space.set_zlabel("row", labelpad=-10)
    space.set_title("events", y=0.92)
    space.set_box_aspect((2, 1, 1), zoom=1.0)
    for axis in (space.xaxis, space.yaxis, space.zaxis):
        axis.set_pane_color((0, 0, 0, 0))  # matplotlib's grey would hide the events on a dark page
    space.view_init(elev=18, azim=-62)
    space.tick_params(labelsize=7, pad=-2)
    time, rates = event_rate(events, 40)
    for polarity, colour, name in POLARITIES:
        dash = "-" if polarity else "--"
        rate.plot(1e3 * time, rates[polarity] / 1e3, color=colour, linestyle=dash, label=name)
    rate.set(title="rate (1000 events a second)", xlabel="time (ms)", ylim=(0, None))
    rate.legend()
    return figure


def frames_figure(frames: np.ndarray) -> Figure:
    """Frames (T, 2, H, W): ON events less OFF events of every step, on one scale, two rows from T = 10 on."""
    columns = len(frames) if len(frames) < 10 else -(-len(frames) // 2)
    rows = -(-len(frames) // columns)
    side = WIDTH / columns
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, rows * (side + 0.3) + 0.2), squeeze=False)
    difference = frames[:, 1].astype(float) - frames[:, 0]
    top = max(np.abs(difference).max(), 1)
    for axis in axes.flat:
        axis.set_axis_off()
    for t, (axis, picture) in enumerate(zip(axes.flat, difference, strict=False), 1):
        shown = axis.imshow(picture, cmap="PuOr", vmin=-top, vmax=top)
        axis.set_title(f"t = {t}")
    figure.colorbar(shown, ax=axes, label="ON − OFF", shrink=0.9)
    return figure


def stream_sentence(events: Events) -> str:
    """How many events a stream holds, over what time and pixels."""
    events.check()
    if not len(events.t):
        return f"No event from {events.width} × {events.height} pixels."
    seconds = (events.t.max() + 1 - events.t.min()) / 1e6
    return (
        f"{len(events.t):,} events in {1e3 * seconds:.0f} ms from {events.width} × {events.height} pixels, "
        f"{100 * events.p.mean():.0f} % of them ON."
    )


# The runs


def collect(plan: Experiment, results: str | Path = "results") -> pd.DataFrame:
    """One row a run, the teachers' included, see :func:`companion.pages.parts.frame`."""
    teachers = tuple(config for config in plan.teachers if config not in plan.runs)
    return parts.frame(dataclasses.replace(plan, runs=plan.runs + teachers), results)


def recorded(plan: Experiment, results: str | Path = "results") -> pd.DataFrame:
    """The complete runs of record at other scales that the plan names, one row each, the teachers' included."""
    found = [collect(other, results) for other in report.record_plans(plan)]
    found = [runs[runs.complete] for runs in found if len(runs)]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame({"complete": []}, dtype=bool)


def as_preset(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs without the one switch, VGGSNN's first weights, which :func:`first_weights` compares."""
    return runs[runs.vggsnn_init == "pytorch"] if len(runs) else runs


def first_weights(runs: pd.DataFrame) -> str:
    """What the first weights of TET's VGGSNN change in the baseline's accuracy; '' where nothing is recorded."""
    rows = runs[runs.complete & (runs.method == "baseline") & (runs.student == "vggsnn")] if len(runs) else runs
    if not len(rows):
        return ""
    d = difference(rows, "he", "pytorch", "vggsnn_init")
    if not d.n:
        return ""
    width = f", 95 % interval {parts.signed(d.low)} to {parts.signed(d.high)}" if d.n > 1 else ""
    return (
        f"TET's VGGSNN starts from weights by He's method, √6 = 2.45 times as large as PyTorch's where inputs and "
        f"outputs are as many. Behind batch norms the first firing rates are the same. With them "
        f"(<code>vggsnn_init=he</code>) the baseline changes by {parts.signed(d.mean)} points, {d.n} "
        f"seed{'s' * (d.n > 1)}{width}: {d.judgement}."
    )


def students(runs: pd.DataFrame) -> list[str]:
    """The students of the runs, in their order."""
    return [student for student in dict.fromkeys(runs.student) if student]


def literature() -> str:
    """HTML table: the paper's Table 6."""
    rows = parts.paper("neuromorphic_accuracy")
    columns = {"data": "dataset", "method": lambda row: LABELS.get(row.method, row.method), "from": "citation"}
    columns |= {"network": "architecture", "T": "timesteps"}
    columns["test accuracy (%)"] = lambda row: f'<span class="paper">{row.accuracy:.2f}</span>'
    return parts.table(rows, "The paper's Table 6: its own results and those that it cites.", "table6-paper", columns)


def table(runs: pd.DataFrame, recorded: bool, name: str = "table6") -> str:
    """HTML table of our runs: mean and deviation over seeds; events that were not `recorded` by a camera are named."""
    ours = []
    keys = ["dataset", "student", "teacher", "method", "teacher_input", "timesteps"]
    for (_, student, teacher, method, sees, steps), seeds in runs.groupby(keys, sort=False):
        done = seeds[seeds.complete]
        guided = method in DISTIL
        ours.append(
            {
                "dataset": report.data_of(seeds),
                "method": LABELS[method],
                "network": LABELS[student or teacher] + (f" & {LABELS[teacher]}" if guided else ""),
                "teacher_sees": sees if guided or method == "teacher" else "",
                "timesteps": steps,
                "accuracy": done.accuracy.mean() if len(done) else np.nan,
                "sd": done.accuracy.std(),
                "n": len(done),
                "links": parts.run_links(done),
            }
        )

    def accuracy(row) -> str:
        spread = f" ± {row.sd:.2f}" if np.isfinite(row.sd) else ""
        return f'<span class="ours">{parts.text(row.accuracy)}{spread}</span> {row.links}'

    columns = {"data": "dataset", "method": "method", "network": "network", "teacher sees": "teacher_sees"}
    columns |= {"T": "timesteps", "test accuracy (%)": accuracy}
    caption = "Our runs, mean ± standard deviation over seeds"
    caption += "." if recorded else "; they see simulated events, and no row can be compared with one of the paper's."
    frame = pd.DataFrame(ours)
    return parts.table(frame, caption, name, columns, csv=frame.drop(columns="links"))


def sentences(runs: pd.DataFrame) -> list[str]:
    """SASTC against the other methods, and the two ways to show events to a teacher."""
    found = []
    for student in students(runs):
        rows = runs[(runs.student == student) & runs.complete]
        mean, each = (rows[rows.teacher_input == sees] for sees in ("mean_frame", "per_step"))
        pairs = {f"SASTC minus {LABELS[o]}": difference(mean, "sastc", o) for o in METHODS[:-1]}
        pairs |= {
            f"SASTC minus {LABELS[o]}, both with a teacher that sees each step's frame": difference(each, "sastc", o)
            for o in TAUGHT[:-1]
        }
        for method in TAUGHT:
            what = f"{LABELS[method]} with a teacher that sees each step's frame minus one that sees the mean frame"
            pairs[what] = difference(rows[rows.method == method], "per_step", "mean_frame", "teacher_input")
        for what, d in zip(pairs, family(pairs.values()), strict=True):
            if d.n:
                found.append(f"{LABELS[student]}: {what} {d.words()} points (n={d.n}: {d.judgement}).")
    return found


def _curves(runs: pd.DataFrame, student: str, method: str) -> np.ndarray:
    """Accuracy in percent after each step, (seeds, T), of the runs whose teacher sees the mean frame."""
    chosen = runs[runs.complete & (runs.teacher_input == "mean_frame")]
    chosen = chosen[(chosen.student == student) & (chosen.method == method)]
    return np.array([Run(path).measures["accuracy_by_step"] for path in chosen.path])


def arrival_figure(runs: pd.DataFrame) -> Figure:
    """Accuracy of the logits after 1, 2, ... T steps: one panel a student, one line a method, all seeds in its band."""
    shown = students(runs)
    figure, axes = plt.subplots(1, len(shown), figsize=(min(3.6 * len(shown), WIDTH), 2.9), sharey=True, squeeze=False)
    for axis, student in zip(axes[0], shown, strict=True):
        for method in METHODS:
            curves = _curves(runs, student, method)
            if len(curves):
                steps = np.arange(1, curves.shape[1] + 1)
                axis.plot(steps, curves.mean(0), color=COLOURS[method], marker=MARKERS[method], label=LABELS[method])
                axis.fill_between(steps, curves.min(0), curves.max(0), color=COLOURS[method], alpha=0.15, linewidth=0)
        axis.set(title=LABELS[student], xlabel="time steps seen")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0][0].set_ylabel("test accuracy (%)")
    axes[0][-1].legend()
    return figure


def arrival_sentences(runs: pd.DataFrame, margin: float = 1.0) -> list[str]:
    """How much each method knows after one step, and when it comes within `margin` points of its last answer."""
    found = []
    for student in students(runs):
        for method in METHODS:
            curves = _curves(runs, student, method)
            if len(curves):
                mean = curves.mean(0)
                enough = 1 + int(np.argmax(mean >= mean[-1] - margin))
                found.append(
                    f"{LABELS[student]}, {LABELS[method]}: {mean[0]:.1f} % after the first of {len(mean)} steps, "
                    f"{mean[-1]:.1f} % after the last; within {margin:g} point{'s' * (margin != 1)} of that from step "
                    f"{enough} on."
                )
    return found


def confusion(runs: Sequence[Run]) -> tuple[np.ndarray, np.ndarray]:
    """Test images by true and predicted class in percent of the true class, over all `runs`, and the class names."""
    counts = sum(run.measures["confusion"] for run in runs)
    return 100 * counts / counts.sum(1, keepdims=True).clip(1), runs[0].measures["class_names"]


def confusion_figure(runs: Sequence[Run]) -> Figure:
    """The confusion matrix of all `runs` together."""
    share, names = confusion(runs)
    figure, axis = plt.subplots(figsize=(4.6, 4.0))
    picture = axis.imshow(share, cmap=SEQUENTIAL, vmin=0, vmax=100)
    for (i, j), value in np.ndenumerate(share):
        if value >= 0.5:
            colour = ON_LIGHT if value > 55 else ON_DARK
            axis.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=7, color=colour)
    axis.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 2 else 0)
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="predicted class", ylabel="true class")
    axis.grid(False)
    figure.colorbar(picture, ax=axis, label="share of the true class (%)", shrink=0.85)
    return figure


def confusion_sentence(runs: Sequence[Run]) -> str:
    """The class that is known best, the one that is known worst, and what is most often taken for what."""
    share, names = confusion(runs)
    own, other = np.diag(share), share * (1 - np.eye(len(share)))
    if not other.any():
        return "No class is taken for another."
    i, j = np.unravel_index(other.argmax(), other.shape)
    return (
        f"Recognised best: {names[own.argmax()]} ({own.max():.0f} %); "
        f"worst: {names[own.argmin()]} ({own.min():.0f} %). "
        f"Most often {names[i]} is taken for {names[j]} ({other[i, j]:.0f} %; the other way round {other[j, i]:.0f} %)."
    )


def schedule_sentence(config: RunConfig) -> str:
    """When the feature loss has its say: each third's share of the sum over epochs of learning rate times β."""
    epochs = range(config.epochs)
    push = np.array([config.learning_rate_at(epoch) * config.beta_at(epoch) for epoch in epochs])
    thirds = 3 * np.array(epochs) // config.epochs
    shares = 100 * np.array([push[thirds == k].sum() for k in range(3)]) / push.sum()
    first, second, last = (f"{share:.0f}" for share in shares)
    return (
        f"Both schedules together: of the sum of learning rate × β over {config.epochs} epochs, {first}, {second} and "
        f"{last} % fall into the first, second and last third. So the feature loss moves the student's weights most in "
        f"the {('first', 'second', 'last')[shares.argmax()]} third, whatever β is at the end."
    )


def wilson(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share of `n` independent draws (Wilson 1927), which stays within 0 and 1."""
    middle, half = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    return (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)


def small_test_set(runs: pd.DataFrame) -> str:
    """Which recordings the runs of record saw, how few they were tested on, and what that leaves open."""
    done = runs[runs.complete & (runs.student != "")]
    data = Run(done.path.iloc[0]).provenance["data"]
    images, share = data["test_images"], done.accuracy.mean() / 100
    low, high = (100 * end for end in wilson(share, images))
    return (
        f"{data['name']}: recorded by a camera, {data['train_images']:,} recordings for training and {images:,} for "
        f"testing. One test recording is {100 / images:.3g} percentage point{'s' * (images != 100)}. An accuracy of "
        f"{100 * share:.1f} %, the mean of these runs, on so few has a 95 % interval from {low:.1f} to {high:.1f} % "
        "(binomial, Wilson). All "
        "seeds share these recordings and the teacher, so the intervals over seeds below hold for them and for no "
        "others: differences of a few points are no finding."
    )


def readings(*runs: pd.DataFrame) -> str:
    """Which methods have a teacher that sees the mean frame, and which one that sees each step's, by data."""
    told = []
    for rows in runs:
        taught = rows[rows.complete & (rows.student != "") & rows.method.isin(DISTIL)] if len(rows) else rows
        if not len(taught):
            continue
        mean, each = (
            ", ".join(LABELS[m] for m in TAUGHT if m in set(taught.method[taught.teacher_input == sees])) or "none"
            for sees in ("mean_frame", "per_step")
        )
        told.append(
            f"On {report.data_of(taught)}, with a teacher that sees the mean of the frames: {mean}; with one that sees "
            f"each step's frame: {each}."
        )
    return " ".join(told)


def teachers_sentence(runs: pd.DataFrame) -> str:
    """How accurate the teachers are beside a student that has none: what there is to be taught; '' without both."""
    done = runs[runs.complete]
    baseline, teachers = done[done.method == "baseline"], done[done.method == "teacher"]
    if not len(baseline) or not len(teachers):
        return ""
    alone = baseline.accuracy.mean()
    told = [
        f"the one that sees {'the mean frame' if row.teacher_input == 'mean_frame' else 'each frame'} is at "
        f"{row.accuracy:.2f} %{', no better than the baseline' * bool(row.accuracy <= alone)}"
        for row in teachers.itertuples()
    ]
    return f"Teachers, beside a baseline at {alone:.2f} %: {'; '.join(told)}."


def caution(runs: pd.DataFrame) -> str:
    """How many seeds there are, and how exact one accuracy on so many test images can be."""
    done = runs[runs.complete & (runs.student != "")]
    if not len(done):
        return "No student is recorded."
    seeds = ", ".join(f"{rows.seed.nunique()} of {LABELS[s]}" for s, rows in done.groupby("student", sort=False))
    images = int(Run(done.path.iloc[0]).measures["confusion"].sum())
    share = done.accuracy.mean() / 100
    error = 100 * np.sqrt(share * (1 - share) / images)
    return (
        f"Seeds: {seeds}. On {images:,} test images an accuracy of {100 * share:.1f} % has a standard error of "
        f"{error:.1f} points from the choice of images alone, besides what differs between seeds."
    )


# Attention over time


def attention_figure(run: Run) -> Figure:
    """Mean weight over the time steps: one panel a student layer, one line a teacher layer."""
    measures = run.measures
    weights = measures["attention"][-1]  # (T, S, A)
    figure, axes = plt.subplots(1, weights.shape[1], figsize=(WIDTH, 2.6), sharey=True, squeeze=False)
    steps = np.arange(1, len(weights) + 1)
    for s, axis in enumerate(axes[0]):
        for a, name in enumerate(measures["teacher_layers"]):
            axis.plot(steps, weights[:, s, a], label=f"teacher {name}", **series(a))
        axis.axhline(1 / weights.shape[2], color="red", linewidth=1)
        axis.set(title=f"student {measures['student_layers'][s]}", xlabel="time step")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0][0].set_ylabel("attention η")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=weights.shape[2], fontsize=8)
    return figure


def attention_sentences(runs: Sequence[Run]) -> list[str]:
    """What the weights of several seeds do over time: how much they move, beside images and seeds, and where."""
    if not runs:
        return ["No SASTC run is recorded."]
    weights = np.stack([run.measures["attention"][-1] for run in runs])  # (R, T, S, A)
    spreads = {
        "over time steps": np.mean([spread(w) for w in weights]),
        "between images": np.mean([spread(run.measures["attention_instance"][-1]) for run in runs]),
        "between seeds": spread(weights),
    }
    told = ", ".join(f"{v:.4f} {name}" for name, v in spreads.items() if np.isfinite(v))
    uniform = np.abs(weights - 1 / weights.shape[-1]).mean()
    favourites = weights.argmax(-1)  # (R, T, S)
    kept = (favourites == favourites[:, :1]).all(1)
    path = weights.mean(0)
    _, s, a = np.unravel_index((np.abs(path - path[0])).argmax(), path.shape)
    student, teacher = (runs[0].measures[f"{who}_layers"] for who in ("student", "teacher"))
    line = path[:, s, a]
    first = np.abs(line[1] - line[0]) if len(line) > 1 else 0.0
    rest = np.abs(np.diff(line[1:])).max() if len(line) > 2 else 0.0
    when = "The largest change is between the first two steps" if first >= rest else "It goes on changing after step 2"
    return [
        f"The weights lie {uniform:.3f} from uniform on average. Their standard deviation is {told} ({len(runs)} "
        f"run{'s' * (len(runs) > 1)}).",
        f"A student layer prefers the same teacher layer at every step in {kept.sum()} of {kept.size} cases, each one "
        "student layer of one run.",
        f"The weight that moves most, on average over runs, is that of student {student[s]} on teacher {teacher[a]}: "
        f"from {line[0]:.3f} at t = 1 to between {line[1:].min(initial=line[-1]):.3f} and "
        f"{line[1:].max(initial=line[-1]):.3f} later. {when}.",
    ]
