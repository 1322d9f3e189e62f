"""The front page: sentences follow intervals, marks follow verdicts, and plots say what they show."""

import dataclasses
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from companion import report
from companion.pages import front, headlines, sweeps
from companion.pages.verdicts import Found
from companion.pages.verdicts_claims import Claim, Comparison
from companion.stats import Difference

UP, DOWN, OPEN = (Difference(mean, 1.0, 5) for mean in (3.0, -9.0, 0.5))
WIDE = Difference(-13.85, 1.07, 10)


def claim(rival, *comparisons, **more):
    """A claim of the front page; its comparisons are named by number of steps."""
    named = [Comparison(f"SASTC − X, VGG-11 & ResNet-19, T={t}", d) for t, d in enumerate(comparisons, 2)]
    words = dict(front=f"SASTC beats {rival}", rival=rival, paper=lambda: "39 of 39 cells", printed=lambda: 39)
    return Found(Claim("name", "words", "table2", list, **words), named, True, page="table2_slim", **more)


def attention_run(easiest: int, cells: int = 4):
    """A run whose attention is on the easiest layer in some of its cells."""
    distance = np.tile([1.0, 2.0], (1, 1, cells, 1))  # (E, T, S, A)
    attention = np.tile([0.3, 0.7], (1, 1, cells, 1))
    attention[0, 0, :easiest] = [0.7, 0.3]
    return SimpleNamespace(measures=dict(attention=attention, distance=distance))


def controls(*comparisons):
    """The claim about replaced weights."""
    names = ("uniform", "random", "untrained", "CKA")
    named = [Comparison(f"learned − {name}", d) for name, d in zip(names, comparisons, strict=False)]
    words = dict(front="Learned attention beats its replacements", paper=lambda: "no control")
    return Found(Claim("name", "words", "controls", list, **words), named, True, page="controls_slim")


@pytest.mark.parametrize(
    ("claims", "sentence"),
    [
        ([claim("A", UP, UP)], "Here, SASTC beats A in all 2 comparisons."),
        ([claim("A", UP)], "Here, SASTC beats A (+3.00 [+2.00, +4.00] points, n=5)."),
        ([claim("A", UP, OPEN, UP)], "Here, SASTC beats A in 2 of 3."),
        (
            [claim("A", *[UP] * 5, OPEN)],
            "Here, SASTC beats A on average over 6 comparisons (+2.58 [+1.51, +3.65] points, and in 5 of them singly).",
        ),
        (
            [claim("A", Difference(1.0, 0.95, 5), Difference(6.0, 5.8, 5))],
            "Here, SASTC beats A in each of 2 comparisons (uncorrected).",
        ),
        ([claim("A", *[UP] * 5, DOWN)], "Here, SASTC beats A in 5 of 6 and not always."),
        ([claim("A", OPEN, OPEN)], "Here, SASTC is not shown to beat A."),
        ([claim("A", DOWN)], "Here, SASTC does not beat A (−9.00 [−10.00, −8.00] points, n=5)."),
        ([claim("A", dataclasses.replace(UP, n=3))], "Here, SASTC is not shown to beat A."),
        (
            [claim("A", UP, UP), claim("B", UP, OPEN), claim("C", DOWN, DOWN), claim("E", OPEN)],
            "Here, SASTC beats A in all 2 comparisons and B in 1 of 2, but not C (0 of 2), and is not shown to beat E.",
        ),
        ([claim("A", Difference(2.0, math.nan, 1))], "No verdict is possible yet: too little is run."),
        ([dataclasses.replace(claim("A", UP), papers_data=False)], "No verdict is possible yet: too little is run."),
        ([], "No verdict is possible yet: too little is run."),
    ],
)
def test_the_first_sentence_follows_the_verdicts(claims, sentence):
    assert front.headline(claims, [], "Here") == sentence


def test_the_largest_scale_leads_the_headline():
    from sastc.experiments import load_experiment

    plan = load_experiment(report.ROOT / "experiments" / "verdicts.yaml", "slim")
    small, large = (claim(name, UP, scale=scale) for name, scale in (("A", "slim"), ("B", "quarter")))
    learned = dataclasses.replace(controls(OPEN), scale="slim")
    assert front.place(plan, [small, large, learned]) == "On CIFAR-10 with quarter-width networks"
    assert front.place(plan, [learned]) == "On CIFAR-10 with small networks"
    two = dataclasses.replace(large, datasets=("cifar10", "cifar100"))
    assert front.place(plan, [dataclasses.replace(small, datasets=("nmnist",)), two]) == (
        "On CIFAR-10 and CIFAR-100 with quarter-width networks"
    )
    text = front.headline([small, large, learned], [attention_run(4)], "Here")
    assert text.startswith("Here, SASTC beats B (+3.00 [+2.00, +4.00] points, n=5). There its attention")
    assert "difference in accuracy (n=5, small-scale runs). With small" in text
    assert text.endswith(" With small networks it beats A (+3.00 [+2.00, +4.00] points, n=5).")


def test_a_claim_that_is_not_for_the_front_page_is_not_in_its_sentence():
    other = claim("B", UP)
    other = dataclasses.replace(other, claim=dataclasses.replace(other.claim, front=""))
    assert front.headline([claim("A", UP), other], [], "Here") == (
        "Here, SASTC beats A (+3.00 [+2.00, +4.00] points, n=5)."
    )
    assert "words" not in front.claims_list([claim("A", UP), other])


@pytest.mark.parametrize(
    ("comparisons", "words"),
    [
        ([UP, OPEN], "more accurate than uniform, not distinguishable from random weights (n=5)."),
        ([DOWN, UP], "more accurate than random, less accurate than uniform weights (n=5)."),
    ],
)
def test_the_second_sentence_follows_the_controls(comparisons, words):
    found = [claim("A", UP), controls(*comparisons)]
    text = front.headline(found, [attention_run(4)], "Here")
    start = "There its attention always picks the teacher layer that is easiest to imitate"
    assert text.endswith(f" {start}; learned weights are {words}")
    same = front.headline([claim("A", UP), controls(OPEN, OPEN)], [attention_run(4)], "Here")
    assert same.endswith(f" {start}; replacing its weights makes no distinguishable difference in accuracy (n=5).")
    some = front.headline(found, [attention_run(4), attention_run(2)], "Here")
    assert "There its attention in 75 % of cases picks the teacher layer that is easiest to imitate;" in some
    few = dataclasses.replace(found[1], claim=dataclasses.replace(found[1].claim, least=4))
    assert front.headline([found[0], few], [attention_run(4)], "Here").endswith(f"{start}.")
    alone = front.headline([claim("A", UP)], [attention_run(4)], "Here")
    assert alone.endswith(f" {start}.")


def test_names_leave_out_what_is_common():
    cells = [f"SASTC − KD, {pair}" for pair in ("VGG-11 & R-19, T=2", "VGG-11 & R-19, T=3", "R-18 & W-28, T=2")]
    assert front.names([Comparison(w, UP) for w in cells]) == ["VGG-11, T=2", "VGG-11, T=3", "R-18, T=2"]
    teachers = [f"SASTC − KD, VGG-11 & {teacher}, T=2" for teacher in ("R-19", "W-28")]
    assert front.names([Comparison(w, UP) for w in teachers]) == ["VGG-11 & R-19", "VGG-11 & W-28"]
    assert front.names([Comparison(cells[0], UP)]) == ["VGG-11, T=2"]
    assert front.names([Comparison("SASTC − KD", UP)]) == ["SASTC − KD"]
    assert front.names(controls(UP, UP, UP, UP).comparisons) == ["uniform", "random", "untrained", "CKA"]


def test_plots_are_to_scale_and_say_what_they_show():
    one = claim("A", UP, OPEN, Difference(2.0, math.nan, 1))
    low, high, ticks = front.axis([one])
    assert low < -0.5
    assert high > 4.0
    assert ticks == [0, 1, 2, 3, 4]
    assert re.findall(r'text-anchor="middle">([^<]*)<', front.scale_of(-2, 2, [-1, 0, 1])) == ["−1", "0", "+1"]
    drawing = front.plot(one, 0.0, 4.0, [])
    assert re.findall(r'class="(\w+)" cx="([\d.]+)%"', drawing) == [
        ("outside", "75.00"),
        ("inside", "12.50"),
        ("inside", "50.00"),
    ]
    assert re.findall(r'class="reach" x1="([-\d.]+)%" x2="([\d.]+)%"', drawing) == [
        ("50.00", "100.00"),
        ("-12.50", "37.50"),
    ]
    assert (
        'aria-label="T=2: +3.00 [+2.00, +4.00] points, n=5; T=3: +0.50 [−0.50, +1.50] points, n=5; '
        'T=4: +2.00 points, n=1"' in drawing
    )


def test_every_row_has_its_mark_its_number_of_seeds_and_its_link():
    found = [
        claim("A", UP, dataclasses.replace(UP, n=3)),
        claim("B", DOWN),
        claim("C", OPEN, UP),
        controls(OPEN),
    ]
    page = front.claims_list([*found, dataclasses.replace(claim("D"), page="")])
    rows = page.split('<li class="claim">')[1:]
    assert [re.search(r'class="verdict (\w+)"', row)[1] for row in rows] == ["held", "failed", "open", "open", "open"]
    assert "open: 1 of 2 cells above zero" in rows[2]
    assert "n=3 to 5 seeds, 2 comparisons (the paper: 39)" in rows[0]
    small = claim("A", OPEN, UP, scale="slim")
    large = dataclasses.replace(claim("A", UP, UP, scale="quarter"), smaller=(small,))
    told = "n=5 seeds, 2 comparisons (the paper: 39); quarter-width runs, VGG-11 & ResNet-19"
    assert front.seeds(large) == f"{told}; small-scale runs: 1 of 2 cells above zero"
    assert front.seeds(controls(UP, UP)).endswith("(the paper: none); the paper's scale"), "no cell is named"
    assert '<a href="runs/table2_slim.html">SASTC beats A</a>' in rows[0]
    assert '<a href="runs/controls_slim.html">' in rows[3]
    assert "not run" in rows[4]
    assert "<svg" not in rows[4]


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1300])
def test_the_numbers_of_every_interval_are_in_sight(browser, width):
    css = (Path(__file__).parents[2] / "book/_static/custom.css").read_text()
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_content(f"<style>body {{font: 16px sans-serif}} {css}</style>{front.claims_list([claim('A', UP, WIDE)])}")
    values, dots = page.locator(".values li").all(), page.locator(".intervals circle").all()
    labels = page.locator(".intervals ul:first-child li").all_text_contents()
    assert labels == ["T=2", "T=3"]
    assert [value.inner_text() for value in values] == ["+3.00 [+2.00, +4.00] n=5", "−13.85 [−14.92, −12.78] n=10"]
    for value, dot in zip(values, dots, strict=True):
        row, mark = value.bounding_box(), dot.bounding_box()
        assert row["x"] + row["width"] <= width
        assert value.evaluate("li => li.scrollWidth <= li.clientWidth"), "within its column"
        assert row["y"] <= mark["y"] + mark["height"] / 2 <= row["y"] + row["height"], "of one row"
        if width < 600:
            assert mark["y"] >= row["y"] + 18, "below its numbers"
    page.close()


# Headlines of the pages


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ([], ""),
        ([(math.nan, math.nan, 0)], ""),
        ([(2.0, 1.0, 3), (2.0, 1.0, 3), (0.5, 1.0, 3)], "more accurate in 2 of 3, not distinguishable in 1"),
        ([(-2.0, 1.0, 3), (2.0, math.nan, 1)], "less accurate in 1 of 2, not judged in 1"),
    ],
)
def test_differences_are_tallied_by_their_intervals(found, text):
    assert headlines.tally(Difference(*numbers) for numbers in found) == text


def test_a_single_difference_in_words():
    assert headlines.beside(UP, "higher", "lower") == "higher than"
    assert headlines.beside(DOWN, "higher", "lower") == "lower than"
    assert headlines.beside(OPEN, "higher", "lower") == "not distinguishable from"
    assert headlines.beside(Difference(0.5, math.nan, 1), "higher", "lower") == "not judged beside"


def test_the_value_that_changes_nothing_is_not_counted(monkeypatch):
    """A sweep's headline leaves out the clean data, and a panel in which nothing else is run."""
    found = pd.DataFrame(dict(value=[0.0, 0.5], other="kd", difference=[UP, OPEN]))
    panel = SimpleNamespace(title="A & B, T=2: one teacher")
    monkeypatch.setattr(sweeps, "differences", lambda of, panel: found)
    assert headlines.sweep(sweeps.TABLE7, [panel]).startswith("SASTC is not distinguishable from KD in 1 of 1 shares")
    two = pd.DataFrame(
        dict(value=[0.2, 0.8], other="kd", difference=[Difference(0.5, 1.0, 2), Difference(9.0, 1.0, 2)])
    )
    monkeypatch.setattr(sweeps, "differences", lambda of, panel: pd.concat([found, two]))
    told = headlines.sweep(sweeps.TABLE7, [panel])
    assert "not distinguishable from KD in 1 of 1 shares" in told
    assert "; 2 more with too few seeds to judge (n=2) (" in told
    monkeypatch.setattr(sweeps, "differences", lambda of, panel: found[:1])
    assert "is not compared with KD" in headlines.sweep(sweeps.TABLE7, [panel])
