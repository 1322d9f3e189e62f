"""Guided examples: found by settings and numbers, with sentences that say what the arrays hold."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from browsing import closed_context, served
from engines import ENGINES
from explored import record

from companion.pages.explorer import find_examples
from sastc.config import RunConfig
from sastc.experiments import load_experiment
from sastc.explorer import explore
from sastc.records import list_runs, write_arrays

ROOT = Path(__file__).parents[2]
LOW, HIGH = 1 / (1 + 2 * np.exp(2)), np.exp(2) / (np.exp(2) + 2)  # weights of three layers with scores from -1 to 1
BOUND = (1 - HIGH) / 2
E, T, P = 4, 2, 5


def made(folder, weights, distances, cka=None, start=None, **settings):
    """A run of 2 student and 3 teacher layers with these (S, A) arrays; `start` is its first epoch's."""
    run = record(folder, epochs=E, timesteps=T, layers=(2, 3), **settings)
    weights = np.array(weights, float)
    by_epoch = np.stack([weights if start is None or e else np.array(start, float) for e in range(E)])
    arrays = dict(run.measures)
    arrays["attention"] = np.repeat(by_epoch[:, None], T, 1)
    arrays["attention_instance"] = np.repeat(arrays["attention"][:, None], P, 1)
    arrays["distance"] = np.broadcast_to(np.array(distances, float), (E, T, 2, 3))
    arrays["cka"] = np.broadcast_to(np.array(distances if cka is None else cka, float), (E, T, 2, 3))
    write_arrays(run.path / "measures.npz", arrays)
    return run


def titled(runs):
    return {example["title"]: example for example in find_examples(runs)}


FIRST = [[HIGH, BOUND, BOUND]] * 2
LAST = [[BOUND, BOUND, HIGH]] * 2
EVEN = [[0.3, 0.3, 0.4]] * 2
CHEAP_FIRST, CHEAP_LAST = [[0.1, 0.5, 0.9]] * 2, [[0.9, 0.5, 0.1]] * 2
FALLING = [[0.9, 0.5, 0.1]] * 2  # CKA


def test_the_bound_is_named_with_the_epoch_from_which_it_holds(tmp_path):
    late = made(tmp_path, FIRST, CHEAP_FIRST, FALLING, start=EVEN)
    free = made(tmp_path, EVEN, CHEAP_FIRST, FALLING, seed=1)
    assert "Weights at their bound" not in titled([free])
    found = titled([free, late])["Weights at their bound"]
    assert found["state"] == {"run": late.name}
    assert found["look"].startswith("From epoch 2 on")
    assert "100\u00a0% of the rows of the 5 recorded images" in found["look"]
    assert "0.787" in found["look"]
    early = made(tmp_path, FIRST, CHEAP_FIRST, FALLING, seed=2)
    assert titled([late, early])["Weights at their bound"]["state"] == {"run": early.name}


def test_without_unit_length_is_shown_where_a_weight_passes_the_bound(tmp_path):
    within = made(tmp_path, EVEN, CHEAP_FIRST, FALLING, qk_norm=False)
    assert "Without unit length" not in titled([within])
    beyond = made(tmp_path, [[1, 0, 0]] * 2, CHEAP_FIRST, FALLING, qk_norm=False)
    found = titled([beyond])["Without unit length"]
    assert found["state"] == {"run": beyond.name}
    assert "reach 1.00, and 0.00. With unit length 0.79 is the most." in found["look"]
    beside = made(tmp_path, EVEN, CHEAP_FIRST, FALLING)
    assert titled([beside, beyond])["Without unit length"]["state"] == {"run": beyond.name, "run2": beside.name}


def test_the_noisy_teacher_is_shown_where_the_cheapest_layer_changes_and_the_weights_follow(tmp_path):
    clean = made(tmp_path, FIRST, CHEAP_FIRST, label_noise=0.5)
    same = made(tmp_path, FIRST, CHEAP_FIRST, label_noise=0.5, noise_teacher="same_noise")
    title = "A teacher with wrong labels"
    assert title not in titled([clean, same]), "nothing changes"
    stays = made(tmp_path, FIRST, CHEAP_LAST, label_noise=0.5, noise_teacher="same_noise")
    assert title not in titled([clean, stays]), "the weights do not follow"
    moves = made(tmp_path, [LAST[0], FIRST[1]], CHEAP_LAST, label_noise=0.5, noise_teacher="same_noise")
    found = titled([clean, moves])[title]
    assert found["state"] == {"run": moves.name, "run2": clean.name}
    assert "50\u00a0% wrong labels" in found["look"]
    assert "Its block3 becomes the cheapest to imitate (clean: block1)" in found["look"]
    assert "in 1 of 2 rows" in found["look"]
    assert title not in titled([moves]), "with nothing to compare it with"


def test_scaled_targets_are_shown_beside_the_run_without(tmp_path):
    scaled = made(tmp_path, LAST, CHEAP_LAST, FALLING, target_scale=(1.0, 1.0, 0.1))
    title = "Scaled targets"
    assert title not in titled([scaled])
    plain = made(tmp_path, [FIRST[0], LAST[1]], CHEAP_FIRST, FALLING)
    found = titled([plain, scaled])[title]
    assert found["state"] == {"run": scaled.name, "run2": plain.name}
    assert "[1, 1, 0.1]" in found["look"]
    assert "The cheapest layer changes in 2 of 2 rows, the highest weight in 1." in found["look"]


def test_ease_against_cka_takes_the_widest_gap_and_opens_its_matrices(tmp_path):
    title = "Ease and CKA disagree"
    agree = made(tmp_path, FIRST, CHEAP_FIRST, FALLING)
    assert title not in titled([agree])
    cka = [[0.6, 0.7, 0.65], [0.3, 0.8, 0.5]]
    apart = made(tmp_path, FIRST, CHEAP_FIRST, cka, seed=1)
    found = titled([agree, apart])[title]
    assert found["state"] == {"run": apart.name, "cell": [1, 1]}
    assert found["look"].startswith("stage2: block1 is cheapest to imitate (distance 0.1), but block2")
    assert "(CKA 0.80, against 0.30). The highest weight is on block1, the cheap one." in found["look"]


def test_controls_and_runs_without_an_epoch_show_nothing(tmp_path):
    fixed = made(tmp_path, FIRST, CHEAP_FIRST, [[0.1, 0.5, 0.9]] * 2, attention="uniform")
    started = record(tmp_path, epochs=1, seed=5)
    (started.path / "measures.npz").unlink()
    assert find_examples([fixed, started]) == []


@pytest.mark.skipif(not (ROOT / "results" / "slim").is_dir(), reason="needs the recorded runs")
def test_the_explorers_page_offers_every_recorded_run_with_attention():
    plan = ROOT / "experiments" / "explorer.yaml"
    offered = {config.name for scale in ("quick", "slim") for config in load_experiment(plan, scale).runs}
    for path in (ROOT / "experiments").glob("*.yaml"):
        for scale in ("quick", "slim"):
            asked = {config.name for config in load_experiment(path, scale).runs if config.method == "sastc"}
            assert asked <= offered, path.stem
    recorded = [run for run in list_runs(ROOT / "results" / "slim") if run.config.method == "sastc"]
    assert {run.name for run in recorded} <= offered
    found = titled(recorded)
    assert {"Weights at their bound", "Ease and CKA disagree"} <= set(found)
    noisy = RunConfig.from_dict(dict(dataset="cifar10", scale="slim", label_noise=0.5, noise_teacher="same_noise"))
    if any(run.name == noisy.name for run in recorded):
        assert "A teacher with wrong labels" in found


HTML = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width"><title>x</title>'
    '<link rel="icon" href="data:,"></head><body><main><h1>x</h1>{}</main></body></html>'
)


@pytest.fixture(scope="module")
def example_site(tmp_path_factory):
    """A page whose first run shows no example; the others show all."""
    folder = tmp_path_factory.mktemp("examples")
    settings = dict(label_noise=0.5, noise_teacher="same_noise")
    runs = [
        made(folder, EVEN, CHEAP_FIRST, FALLING, seed=3),
        made(folder, FIRST, CHEAP_FIRST, [[0.1, 0.5, 0.9]] * 2),
        made(folder, FIRST, CHEAP_FIRST, FALLING, seed=4),
        made(folder, [[1, 0, 0]] * 2, CHEAP_FIRST, FALLING, qk_norm=False),
        made(folder, FIRST, CHEAP_FIRST, FALLING, label_noise=0.5),
        made(folder, LAST, CHEAP_LAST, FALLING, **settings),
        made(folder, LAST, CHEAP_LAST, FALLING, target_scale=(1.0, 1.0, 0.1)),
    ]
    (folder / "index.html").write_text(HTML.format(explore(runs, examples=find_examples).to_html()), encoding="utf-8")
    shutil.copy(folder / "index.html", folder / "explorer.html")
    return folder, runs


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1440])
def test_one_click_shows_an_example_and_says_what_to_look_at(browser, example_site, width):
    folder, runs = example_site
    faults = []
    with served(folder) as base:
        page = closed_context(browser, (base,), faults, width).new_page()
        page.goto(f"{base}/explorer.html")
        page.wait_for_selector(".cell")
        examples = find_examples(runs)
        assert len(examples) == 5
        assert page.locator(".look").is_hidden()
        buttons = page.get_by_role("group", name="Examples").get_by_role("button")
        assert buttons.all_text_contents() == [example["title"] for example in examples]
        for button, example in zip(buttons.all(), examples, strict=True):
            button.click()
            assert page.locator(".look").inner_text() == example["look"]
            assert button.get_attribute("aria-pressed") == "true"
            assert page.locator(".examples [aria-pressed=true]").count() == 1
            assert page.locator(".panel").count() == 1 + ("run2" in example["state"])
            assert page.locator(".behind").is_visible() == ("cell" in example["state"])
            assert f"run={example['state']['run']}" in page.url
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        address = page.url
        page.goto("about:blank")
        page.goto(address)
        page.wait_for_selector(".cell")
        assert page.locator(".look").inner_text() == examples[-1]["look"]
        page.context.close()
    assert not faults


@pytest.mark.browser
def test_a_tip_follows_a_mouse_and_goes_with_the_page_and_the_maps_columns_are_named_twice(browser, example_site):
    faults = []
    with served(example_site[0]) as base:
        page = closed_context(browser, (base,), faults, 390, has_touch=True).new_page()
        page.goto(f"{base}/explorer.html")
        cell, tip = page.locator(".cell").first, page.locator(".tip")
        cell.scroll_into_view_if_needed()
        cell.hover()
        assert tip.is_visible()
        page.mouse.wheel(0, 40)
        tip.wait_for(state="hidden")
        cell.hover()
        assert tip.is_visible()
        page.mouse.down()
        page.mouse.up()
        page.wait_for_timeout(200)
        assert tip.is_hidden(), "what is behind the cell has its words"
        cell.tap()
        page.wait_for_timeout(200)
        assert tip.is_hidden()
        above, below = page.locator(".heat [role=columnheader]"), page.locator(".heat .again text")
        assert below.all_text_contents() == above.all_text_contents()[1:], "without the corner"
        assert below.first.bounding_box()["y"] > page.locator(".heat .cell").last.bounding_box()["y"]
        page.context.close()
    assert not faults


IN = "const root = document.querySelector('.sastc-explorer').shadowRoot;"

# Every control and cell once, as they come: how many; or the one after which there is neither a map nor why not
EVERY_ACTION = f"""return (async () => {{ {IN}
    const all = () => [...root.querySelectorAll("input, select, button, summary, .cell, a[download]")];
    const told = () => /No recorded/.test(root.querySelector(".panel").textContent);
    let actions = 0;
    for (let i = 0; i < all().length; i++) {{
        const one = all()[i], options = [...one.options || []].map(option => option.value);
        const values = one.type === "range" ? [one.min, one.max] : options;
        for (const value of values) {{
            one.value = value;
            for (const kind of ["input", "change"]) one.dispatchEvent(new Event(kind, {{bubbles: true}}));
        }}
        if (!values.length) one.dispatchEvent(new MouseEvent("click", {{bubbles: true, cancelable: true}}));
        await new Promise(done => setTimeout(done, 20));
        if (!root.querySelector(".cell .value") && !told()) return one.getAttribute("aria-label") || one.textContent;
        actions += values.length || 1;
    }}
    return actions;
}})()"""


@pytest.mark.browser
@ENGINES
def test_the_explorer_works_in_other_engines_too(engine, example_site, tmp_path):
    folder, runs = example_site
    with served(folder) as base, engine(tmp_path) as page:
        page.goto(f"{base}/explorer.html")
        examples = find_examples(runs)
        count = page.run(f"{IN} return root.querySelectorAll('.examples button').length")
        assert count == len(examples)
        for i, example in enumerate(examples):
            page.run(f"{IN} root.querySelectorAll('.examples button')[{i}].click()")
            assert page.run(f"{IN} return root.querySelector('.look').textContent") == example["look"]
            run = next(run for run in runs if run.name == example["state"]["run"])
            drawn = page.run(
                f"{IN} return [...root.querySelectorAll('.panel')[0].querySelectorAll('.cell .value')]"
                ".map(cell => cell.textContent).join(' ')"
            )
            expected = run.measures["attention"][-1].mean(0).ravel()
            np.testing.assert_allclose(np.array(drawn.split(), float), expected, atol=0.00502)
        page.run(f"{IN} root.querySelectorAll('.examples button')[{len(examples) - 1}].click()")
        shown = page.run(f"{IN} return root.querySelector('.behind').hidden + ' ' + "
                         "[...root.querySelectorAll('.classes span')].length + ' ' + "
                         "root.querySelectorAll('canvas.similarity').length")  # fmt: skip
        hidden, names, matrices = shown.split()
        assert (hidden, matrices) == ("false", "2")
        assert int(names) > 4
        page.run(
            f"{IN} const slider = root.querySelector('#epoch'); slider.value = 2;"
            "slider.dispatchEvent(new Event('input', {bubbles: true}))"
        )
        facts = page.run(f"{IN} return root.querySelector('.facts-line').textContent")
        assert facts.startswith(f"Epoch 2 of {E}")
        assert "epoch=2" in page.run("return location.href")
        assert page.run("return document.documentElement.scrollWidth - innerWidth") <= 0
        actions = page.run(EVERY_ACTION)
        assert isinstance(actions, int), f"nothing is shown after {actions}"
        assert actions > 40
        assert page.faults == []
