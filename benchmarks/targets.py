"""What was to be reached on the CPU, beside what was measured."""

import html
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

Row = dict[str, Any]
Record = dict[str, Any]


class Target(NamedTuple):
    """A quantity, its bound, and what was measured; `found` is None where nothing was."""

    what: str
    bound: str
    found: float | None
    met: bool
    reason: str  # why it was missed


def targets(record: Record) -> list[Target]:
    """Every target with the values of one record of :mod:`benchmarks.run`."""
    rows = [row for row in record["cases"] if "median" in row]
    return [*_neuron([row for row in rows if row["case"] == "lif"]), *_steps(rows), _recording(rows)]


def _neuron(rows: list[Row]) -> Iterator[Target]:
    def worst(other: str, quantity: Callable[[Row, Row], float], choose: Callable = min, **only: str) -> float | None:
        """Over T, layouts and precisions: the library beside another implementation."""
        key = lambda row: (row["timesteps"], row["layout"], row["precision"])  # noqa: E731
        kept = [row for row in rows if all(row[name] == value for name, value in only.items())]
        pairs = {name: {key(r): r for r in kept if r["implementation"] == name} for name in ("library", other)}
        both = pairs["library"].keys() & pairs[other].keys()
        return choose((quantity(pairs["library"][k], pairs[other][k]) for k in both), default=None)

    def faster(ours: Row, other: Row) -> float:
        return other["median"] / ours["median"]

    for precision in ("fp32", "bf16"):
        reason = _from_the_floor([row for row in rows if row["precision"] == precision])
        what = f"LIF forward and backward, {precision}: speed-up, the least over T and layouts"
        yield _at_least(what, 8, worst("plain", lambda ours, _: ours["ratio"], precision=precision), reason)
    yield _at_least("LIF: speed-up over SpikingJelly, the least", 1, worst("spikingjelly", faster), "")
    reason = "a call of a module costs more than one of the bare function by hand (see the tiny layer below), which a "
    reason += "layer of this size feels at few time steps"
    best = worst("handwritten", faster)
    yield _at_least("LIF: speed-up over the same by hand in C++, the least (within 5 %)", 0.95, best, reason)
    kept = worst("plain", lambda ours, plain: ours["kept_bytes"] / plain["kept_bytes"], max)
    yield _at_most("LIF: memory kept for the backward pass, share of plain, the most", 0.5, kept, "")


def _from_the_floor(rows: list[Row]) -> str:
    """How far the library and the plain loop are from what memory allows, where the speed-up is least."""
    rows = [row for row in rows if "floor_seconds" in row]
    ours = [row for row in rows if row["implementation"] == "library"]
    if not ours:
        return ""
    row = min(ours, key=lambda row: row["ratio"])
    same = [r for r in rows if all(r[name] == row[name] for name in ("timesteps", "layout"))]
    plain = next(r for r in same if r["implementation"] == "plain")
    multiples = [f"{r['median'] / r['floor_seconds']:.2f}" for r in (row, plain)]
    return (
        f"T={row['timesteps']}, {row['layout'].replace('_', ' ')}: {multiples[0]} times the time that memory needs at "
        f"least, the plain loop {multiples[1]} times"
    )


def _steps(rows: list[Row]) -> Iterator[Target]:
    wanted = (
        ("kd_step", "vgg11", "fp32", 1.15),
        ("kd_step", "vgg11", "bf16", 2.0),
        ("sastc_step", "vgg11", "fp32", 1.05),
        ("sastc_step", "vgg11", "bf16", 1.85),
        ("sastc_step", "resnet18", "bf16", 2.2),
    )
    names = {"vgg11": "VGG-11 & ResNet-19", "resnet18": "ResNet-18 & WRN-28-4"}
    for case, student, precision, bound in wanted:
        found = [r for r in rows if r["case"] == case and r["student"] == student and r["timesteps"] == 2]
        width = max((row["width"] for row in found), default=None)  # the paper's where it was measured
        found = [row for row in found if row["width"] == width]
        plain = [row for row in found if row["implementation"] == "plain"]
        ratios = [r["ratio"] for r in found if r["implementation"] == "library" and r["precision"] == precision]
        share = plain[0].get("convolution_share") if plain else None
        reason = ""
        if share and precision == "fp32":
            reason = (
                f"{100 * share:.0f} % of the plain step are convolutions and matrix products, which are the same here: "
                f"without all the rest it would be {1 / share:.2f} times as fast"
            )
        elif share:
            reason = (
                f"{100 * share:.0f} % of the plain step are convolutions and matrix products, sped up by bf16 alone"
            )
        what = f"{case.split('_')[0].upper()} step, {names[student]}, T=2, {precision}: speed-up"
        yield _at_least(what, bound, max(ratios, default=None), reason)


def _recording(rows: list[Row]) -> Target:
    shares = [r["share_of_epoch"] for r in rows if r["case"] == "recording" and r["implementation"] == "attention"]
    reason = "narrow networks and short epochs on the CPU; the cost is that of a few test batches, once an epoch"
    return _at_most(
        "Recording of the attention, share of an epoch's steps, the most", 0.02, max(shares, default=None), reason
    )


def _at_least(what: str, bound: float, found: float | None, reason: str) -> Target:
    return Target(what, f"≥ {bound:g}", found, found is not None and found >= bound, reason)


def _at_most(what: str, bound: float, found: float | None, reason: str) -> Target:
    return Target(what, f"≤ {bound:g}", found, found is not None and found <= bound, reason)


def html_table(record: Record) -> str:
    """The targets as an HTML table."""
    body = ""
    for target in targets(record):
        value = "not measured" if target.found is None else f"{target.found:.3g}"
        said = "–" if target.found is None else "met" if target.met else f"missed: {target.reason}".rstrip(": ")
        cells = (target.what, target.bound, value, said)
        body += "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
    head = "".join(f"<th>{name}</th>" for name in ("quantity", "target", "measured (median)", ""))
    caption = "Targets set before measuring, for the CPU; speed-ups are over the plain implementation."
    table = f"<caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="table-box"><table class="results">{table}</table></div>'
