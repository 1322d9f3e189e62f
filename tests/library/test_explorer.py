"""The explorer against the recorded files: what is packed, and what a real browser shows of it."""

import base64
import json
import re
import shutil
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from browsing import closed_context, served, violations
from explored import E, M, P, record

from sastc.calibration import attention_bounds
from sastc.config import RunConfig
from sastc.explorer import explore
from sastc.explorer.packing import encode, pack_run, thin
from sastc.records import Run, RunError, write_arrays, write_json


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return SimpleNamespace(
        folder=folder,
        first=record(folder, timesteps=3),
        second=record(folder, timesteps=2, seed=1),
        old=record(folder, extras=False, layers=(3, 3), student="resnet18", teacher="wrn28_4"),
        training=record(folder, extras=False, complete=False, epochs=2, timesteps=2, seed=2),
    )


# Packing


def decoded(packed):
    """The documented format, read by other means than the script's."""
    codes = np.frombuffer(base64.b64decode(packed["data"]), {"u2": "<u2", "u1": "u1"}[packed["type"]]).astype(float)
    top = {"u2": 65534, "u1": 254}[packed["type"]]
    values = packed["low"] + codes * (packed["high"] - packed["low"]) / top
    values[codes > top] = np.nan
    return (np.exp(values) if packed["log"] else values).reshape(packed["shape"])


def test_packed_arrays_are_the_recorded_ones_within_the_stated_error(runs):
    packed, measures = pack_run(runs.first, 400_000), runs.first.measures
    for name in ("attention", "attention_class", "attention_instance", "cka", "distance"):
        array = packed["arrays"][name]
        assert array["epochs"] == list(range(1, E + 1))
        relative = measures[name] if name == "distance" else 1
        np.testing.assert_array_less(
            np.nan_to_num(abs(decoded(array) - measures[name]) / relative), 1e-5 * (1 + (name == "distance") * 9)
        )
        np.testing.assert_array_equal(np.isnan(decoded(array)), np.isnan(measures[name]))
    logits = measures["instance_logits"]
    assert abs(decoded(packed["arrays"]["instance_logits"]) - logits).max() <= np.ptp(logits) / 131068 * 1.001
    assert abs(decoded(packed["arrays"]["instance_image"]) - measures["instance_image"]).max() <= 0.51
    order = np.argsort(measures["similarity_label"], kind="stable")
    matrix = measures["similarity_student"][2, 1][np.ix_(order, order)]
    upper = [matrix[i, j] for i in range(M) for j in range(i, M)]
    assert abs(decoded(packed["arrays"]["similarity_student_2_1"]) - upper).max() <= np.ptp(upper) / 508 * 1.001
    assert (packed["low"], packed["high"]) == attention_bounds(3)
    assert packed["accuracy"] == [60, 63.25, 66.5, 69.75, 73]


def test_encoding_of_single_values_and_of_what_has_no_logarithm():
    np.testing.assert_allclose(decoded(encode(np.full((2, 2), 0.25))), 0.25)
    np.testing.assert_allclose(decoded(encode(np.array([0.0, 1.0, 2.0]), log=True)), [0, 1, 2], atol=1e-4)
    assert np.isnan(decoded(encode(np.full(3, np.nan)))).all()
    np.testing.assert_array_equal(decoded(encode(np.array([1.0, np.nan, np.inf, 3.0])))[[0, 3]], [1, 3])


@pytest.mark.parametrize(
    ("epochs", "most", "kept"), [(10, 3, [0, 4, 9]), (4, 9, [0, 1, 2, 3]), (7, 1, [6]), (7, 0, [6])]
)
def test_thinning_keeps_the_ends(epochs, most, kept):
    assert thin(epochs, most).tolist() == kept


def test_long_runs_keep_fewer_epochs_by_image_within_the_budget(tmp_path):
    run = record(tmp_path, epochs=120, timesteps=7)
    packed = pack_run(run, 250_000)
    arrays = packed["arrays"]
    assert len(json.dumps(packed)) < 265_000
    assert len(arrays["attention"]["epochs"]) > 2 * len(arrays["attention_instance"]["epochs"])
    assert arrays["attention"]["epochs"] == arrays["distance"]["epochs"] == arrays["cka"]["epochs"]
    kept = arrays["attention_instance"]["epochs"]
    assert 2 < len(kept) < 120
    assert (kept[0], kept[-1]) == (1, 120)
    expected = run.measures["attention_instance"][np.array(kept) - 1]
    np.testing.assert_allclose(decoded(arrays["attention_instance"]), expected, atol=1e-5)


def test_small_pages_keep_fewer_images_in_the_similarity_matrices(runs):
    packed, measures = pack_run(runs.first, 12_000)["arrays"], runs.first.measures
    (n,) = packed["similarity_label"]["shape"]
    assert 8 <= n < M
    order = np.argsort(measures["similarity_label"][:n], kind="stable")
    matrix = measures["similarity_teacher"][1][np.ix_(order, order)]
    assert abs(decoded(packed["similarity_teacher_1"]) - matrix[np.triu_indices(n)]).max() <= np.ptp(matrix) / 500


def test_what_runs_share_is_in_the_page_once(tmp_path):
    first, second = (record(tmp_path, timesteps=3, seed=seed) for seed in (0, 1))
    alone = len(explore(first).to_html())
    write_arrays(second.path / "measures.npz", first.measures)
    assert len(explore(tmp_path).to_html()) < alone + 6_000


def test_images_are_thumbnails_and_event_frames_become_one_picture(tmp_path):
    run = record(tmp_path, timesteps=3)
    rng = np.random.default_rng(0)
    events = rng.integers(0, 7, (P, 3, 2, 96, 96), dtype=np.uint8)
    write_arrays(run.path / "measures.npz", run.measures | {"instance_image": events})
    packed = decoded(pack_run(run, 400_000)["arrays"]["instance_image"])
    assert packed.shape == (P, 2, 48, 48)
    np.testing.assert_allclose(packed[2, 1, 5, 7], events[2, :, 1, 10, 14].max(), atol=0.02)


def test_a_page_of_twelve_runs_is_light(tmp_path):
    for seed in range(12):
        record(tmp_path, timesteps=7, seed=seed, epochs=30)
    html = explore(tmp_path).to_html()
    assert 500_000 < len(html.encode()) < 2_000_000


def test_what_cannot_be_explored_is_named(tmp_path, runs):
    with pytest.raises(RunError, match=r"nowhere.*there is none"):
        explore(tmp_path / "nowhere")
    write_json(tmp_path / "kd" / "config.json", RunConfig(method="kd").to_dict())
    with pytest.raises(RunError, match="must hold a SASTC run"):
        explore(tmp_path)
    with pytest.raises(RunError, match="at least one"):
        explore([])
    with pytest.raises(ValueError, match=r"interval=0: must be above 0"):
        explore(runs.folder, interval=0)


def test_runs_are_found_below_folders_and_each_is_shown_once(runs):
    write_json(runs.folder / "kd" / "config.json", RunConfig(method="kd").to_dict())
    assert {r.name for r in explore(runs.folder).runs} == {r.name for r in vars(runs).values() if isinstance(r, Run)}
    found = explore([runs.second, runs.first.path, str(runs.second.path)])
    assert [r.name for r in found.runs] == [runs.second.name, runs.first.name]
    assert repr(found) == "Explorer(2 SASTC runs, 2 complete)"


def test_a_recorded_run_is_packed_whole(tmp_path, tiny):
    import sastc

    run = sastc.run(tiny(), results=tmp_path, progress=False)
    packed = pack_run(run, 400_000)
    assert {"attention", "attention_class", "attention_instance", "distance"} <= set(packed["arrays"])
    np.testing.assert_allclose(decoded(packed["arrays"]["attention"]), run.measures["attention"], atol=1e-5)
    assert packed["epochs"] == packed["planned"] == 2


def test_refresh_shows_new_epochs_and_the_watch_ends_with_the_run(tmp_path, monkeypatch):
    shown = []
    handle = SimpleNamespace(update=lambda bundle, raw: shown.append(bundle["text/html"]))
    monkeypatch.setattr("IPython.display.display", lambda bundle, **_: shown.append(bundle["text/html"]) or handle)
    run = record(tmp_path, extras=False, complete=False, epochs=1)
    (run.path / "measures.npz").unlink()
    explorer = explore(run.path, interval=0.02)
    explorer._ipython_display_()
    time.sleep(0.2)
    assert [data_of(html)["runs"][0]["epochs"] for html in shown] == [0]  # nothing new, nothing shown
    record(tmp_path, extras=False, complete=False, epochs=2)
    wait_for(lambda: len(shown) > 1)
    assert data_of(shown[-1])["runs"][0]["epochs"] == 2
    write_json(run.path / "metrics.json", {"accuracy": 1.0})
    wait_for(lambda: data_of(shown[-1])["runs"][0]["complete"])
    wait_for(lambda: not any(t.name.startswith("sastc-explorer") for t in threading.enumerate()))
    record(tmp_path, extras=False, epochs=3)
    assert explorer.refresh() is explorer
    assert data_of(shown[-1])["runs"][0]["epochs"] == 3


def data_of(html):
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)[1])


def wait_for(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


# In a browser

PAGE = (
    '<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8"><title>Explorer</title>'
    '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,"><style>body {{ margin: 12px }} '
    'html[data-theme="dark"] body {{ background: #14181e; color: white }}</style></head>'
    "<body><main><h1>Explorer</h1><h2>Weights</h2>{}</main></body></html>"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory, runs):
    names = ("first", "second", "old", "training")
    html = explore([getattr(runs, n) for n in names]).to_html()
    path = tmp_path_factory.mktemp("site") / "explorer.html"
    path.write_text(PAGE.format(html), encoding="utf-8")
    return path


@pytest.fixture
def open_page(browser, site, tmp_path):
    """Opens the page with the network closed; at the end, no request was tried and the console is silent."""
    faults, contexts = [], []

    def open_page(hash_="", address=None, **options):
        own = (site.parent.as_uri(), tmp_path.as_uri(), "http://127.0.0.1:")
        contexts.append(closed_context(browser, own, faults, **options))
        page = contexts[-1].new_page()
        page.goto((address or site.as_uri()) + hash_)
        page.wait_for_selector(".cell")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not faults


def link(**state):
    return "#explorer?" + "&".join(f"{name}={value}" for name, value in state.items())


def cells(page, panel=0):
    """The values drawn in a heat map, (S, A), from the text and, to three digits, from the label."""
    drawn = page.eval_on_selector_all(
        f'.panel[data-panel="{panel}"] .cell',
        "all => all.map(c => [+c.dataset.s, +c.dataset.a, c.querySelector('.value').textContent, "
        "c.getAttribute('aria-label'), c.querySelector('.ground').getAttribute('fill'), "
        "c.querySelector('.value').getAttribute('fill')])",
    )
    shape = (max(c[0] for c in drawn) + 1, max(c[1] for c in drawn) + 1)
    text, label = np.full(shape, np.nan), np.full(shape, np.nan)
    for s, a, value, said, *_ in drawn:
        text[s, a] = float(value.replace("−", "-"))
        found = re.search(r"difference ([+−]?[\d.]+)", said) or re.search(r"weight ([\d.]+)", said)
        label[s, a] = float(found[1].replace("−", "-"))
    return text, label, drawn


def assert_drawn(page, expected, panel=0, digits=2):
    text, label, _ = cells(page, panel)
    np.testing.assert_allclose(text, expected, atol=0.5 * 10**-digits + 2e-5)
    np.testing.assert_allclose(label, expected, atol=0.0005 + 2e-5)


def set_epoch(page, epoch):
    page.locator("#epoch").fill(str(epoch))


@pytest.mark.slow
@pytest.mark.browser
def test_cells_follow_epoch_step_class_and_image(open_page, runs):
    page, measures = open_page(), runs.first.measures
    assert_drawn(page, measures["attention"][-1].mean(0))
    for epoch in (1, 3, 5):
        set_epoch(page, epoch)
        assert_drawn(page, measures["attention"][epoch - 1].mean(0))
    set_epoch(page, 2)
    page.get_by_role("radio", name="3", exact=True).check(force=True)
    assert_drawn(page, measures["attention"][1, 2])
    page.get_by_role("radio", name="one class").check(force=True)
    page.get_by_label("Class", exact=True).select_option("4")
    assert_drawn(page, measures["attention_class"][1, 4, 2])
    page.get_by_role("radio", name="one image").check(force=True)
    page.get_by_role("radio", name="test image 61").check(force=True)
    assert_drawn(page, measures["attention_instance"][1, 3, 2])


@pytest.mark.browser
@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (dict(against="uniform"), lambda a, c, b: a[-1].mean(0) - 1 / 3),
        (dict(against="first", epoch=4, step=2), lambda a, c, b: a[3, 1] - a[0, 1]),
        (dict(against="step", step=1, step2=3), lambda a, c, b: a[-1, 0] - a[-1, 2]),
        (dict(against="class", images="class", class2=2, epoch=2), lambda a, c, b: (c[1, 0] - c[1, 2]).mean(0)),
        (dict(against="run", step=2, epoch=3), lambda a, c, b: a[2, 1] - b[2, 1]),
    ],
)
def test_differences(open_page, runs, state, expected):
    second = dict(run2=runs.second.name) if state["against"] == "run" else {}
    page = open_page(link(run=runs.first.name, **second, **state))
    a, c, b = (
        runs.first.measures["attention"],
        runs.first.measures["attention_class"],
        runs.second.measures["attention"],
    )
    difference = expected(a, c, b)
    assert_drawn(page, difference, digits=2 if abs(difference).max() >= 0.1 else 3)
    if second:
        assert_drawn(page, -difference, panel=1, digits=2 if abs(difference).max() >= 0.1 else 3)


@pytest.mark.slow
@pytest.mark.browser
def test_the_link_restores_the_state(open_page, runs):
    page = open_page()
    page.get_by_label("A second run beside it").check()
    page.get_by_role("radio", name="2", exact=True).check(force=True)
    set_epoch(page, 2)
    page.locator('.panel[data-panel="0"] .cell[data-s="1"][data-a="2"]').click()
    page.get_by_label("Colours span").select_option("shown")
    restored = open_page("#" + page.url.split("#")[1], width=700)
    for what in (page, restored):
        assert what.locator("#epoch").input_value() == "2"
        assert_drawn(what, runs.first.measures["attention"][1, 1])
        assert_drawn(what, runs.second.measures["attention"][1, 1], panel=1)
        assert what.locator(".behind h3").inner_text() == "Behind stage2 → block3"
        assert what.get_by_label("Colours span").input_value() == "shown"
    page.evaluate(f"location.hash = '{link(run=runs.old.name, epoch=3)}'")
    page.wait_for_function(
        "document.querySelector('.sastc-explorer').shadowRoot.querySelectorAll('.cell').length === 9"
    )
    assert_drawn(page, runs.old.measures["attention"][2].mean(0))


@pytest.mark.browser
def test_a_broken_link_says_so_and_shows_what_there_is(open_page, runs):
    page = open_page(
        link(run="gone", epoch="-3", step=99, image=99, images="x", against="run", cell="8-8", range="<b>")
    )
    assert "not on this page" in page.locator(".root > p.muted").first.inner_text()
    assert_drawn(page, runs.first.measures["attention"][-1, 2])


@pytest.mark.browser
def test_runs_are_chosen_by_what_they_are(open_page, runs):
    page = open_page()
    page.get_by_label("Student & teacher").select_option("ResNet-18 & WRN-28-4")
    assert_drawn(page, runs.old.measures["attention"][-1].mean(0))
    page.get_by_label("Student & teacher").select_option("VGG-11 & ResNet-19")
    page.get_by_label("Seed", exact=True).select_option("2")
    assert "so far" in page.locator(".facts-line").inner_text()
    assert_drawn(page, runs.training.measures["attention"][-1].mean(0))
    page.get_by_label("Time steps T").select_option("3")
    assert_drawn(page, runs.first.measures["attention"][-1].mean(0))


@pytest.mark.slow
@pytest.mark.browser
def test_what_was_not_recorded_is_said(open_page, runs):
    page = open_page(link(run=runs.old.name, images="image", cell="0-1"))
    assert "●" not in page.locator(".panel").inner_text(), "no mark for what is not recorded"
    text = page.locator(".root").inner_text()
    for part in (
        "CKA is not recorded in this run",
        "Image\nrecorded image 1\nLabel\nnot recorded in this run\nPrediction\nnot recorded in this run",
        "no similarity matrices on record",
    ):
        assert part in text
    page = open_page(link(run=runs.training.name, cell="0-1", images="image"))
    assert "Prediction\nwritten when the run ends" in page.locator(".panel").inner_text()
    assert "Similarity matrices are written when the run ends" in page.locator(".behind").inner_text()
    page.get_by_role("radio", name="one class").check(force=True)
    page.get_by_label("Class", exact=True).select_option("9")
    assert "No recorded image belongs to class 9" in page.locator(".panel").inner_text()


@pytest.mark.browser
def test_distance_cka_marks_and_summary_are_those_of_the_file(open_page, runs):
    page, measures = open_page(link(epoch=3, step=2)), runs.first.measures
    weights, distance, cka = (measures[n][2, 1] for n in ("attention", "distance", "cka"))
    for s, a, _, said, *_ in cells(page)[2]:
        assert float(re.search(r"distance ([\d.]+)", said)[1]) == pytest.approx(distance[s, a], rel=0.006)
        assert float(re.search(r"CKA ([−\d.]+)", said)[1].replace("−", "-")) == pytest.approx(cka[s, a], abs=0.0006)
        assert ("highest weight" in said) == (a == weights[s].argmax())
        assert ("smallest distance" in said) == (a == distance[s].argmin())
        assert ("highest CKA" in said) == (a == cka[s].argmax())
        marks = dict(zip("★◇●", (weights[s].argmax(), distance[s].argmin(), cka[s].argmax()), strict=True))
        drawn = page.locator(f'.cell[data-s="{s}"][data-a="{a}"] .mark').all_text_contents()
        assert drawn == [mark for mark, where in marks.items() if a == where]
    legend = page.locator(".marks").inner_text()
    for words in ("★ highest weight", "◇ smallest distance: easiest to imitate", "● highest CKA: most similar"):
        assert words in legend
    easiest = int((weights.argmax(-1) == distance.argmin(-1)).sum())
    verdict = page.locator(".verdict").inner_text()
    similar = int((weights.argmax(-1) == cka.argmax(-1)).sum())
    assert f"easiest teacher layer in {easiest} of 4 rows, on the most similar (by CKA) in {similar}." in verdict
    low, high = attention_bounds(3)
    near = high - 0.01 * (high - low)
    share = (measures["attention_instance"][2, :, 1].max(-1) >= near).mean()
    bound = int((weights.max(-1) >= near).sum())
    each = f"{round(100 * share)}\u00a0% of the rows of the 6 recorded images"
    assert (
        f"upper bound in {bound} of 4, and in {each if share < 1 else 'every one of the 6 recorded images'}." in verdict
    )
    assert "66.50\u00a0%" in page.locator(".facts-line").inner_text()
    chart = page.locator("svg.chart").nth(1)
    for s, row in enumerate(weights):
        entropy = -sum(w * np.log(w) for w in row)
        assert float(re.search(rf"stage{s + 1} (\d+\.\d+)", chart.get_attribute("aria-label"))[1]) == pytest.approx(
            entropy, abs=0.0051
        )
    assert f"ln 3 = {np.log(3):.2f}" in chart.text_content()
    assert "uniform 1/3" in page.locator("svg.scale").text_content()
    for bound in (low, high):
        assert f"{bound:.3f}" in page.locator("svg.scale").text_content()


@pytest.mark.browser
def test_equal_weights_have_no_highest(open_page, tmp_path):
    run = record(tmp_path, attention="uniform")
    measures = dict(run.measures) | dict(attention=np.full_like(run.measures["attention"], 1 / 3))
    write_arrays(run.path / "measures.npz", measures)
    (tmp_path / "uniform.html").write_text(PAGE.format(explore(run).to_html()), encoding="utf-8")
    page = open_page(address=(tmp_path / "uniform.html").as_uri())
    drawn = page.locator(".mark").all_text_contents()
    assert sorted(drawn) == sorted("◇●" * 4)
    assert "★" not in page.locator(".marks").inner_text()
    assert page.locator(".verdict").inner_text() == "All teacher layers have the same weight."


@pytest.mark.browser
def test_bands_are_as_wide_as_their_weights(open_page, runs):
    page, weights = open_page(), runs.first.measures["attention"][-1].mean(0)
    paths = page.eval_on_selector_all("svg.flow .band", "all => all.map(b => b.getAttribute('d'))")
    widths = np.array([float(re.search(r"v([\d.]+)", d)[1]) for d in paths]).reshape(weights.shape)
    np.testing.assert_allclose(widths / widths.sum(1, keepdims=True), weights, atol=1e-4)
    np.testing.assert_allclose(widths.sum(1), widths.sum(1)[0], rtol=1e-4)


@pytest.mark.browser
def test_one_image_with_label_prediction_and_logits(open_page, runs):
    page, measures = open_page(link(images="image", image=4)), runs.first.measures
    logits = measures["instance_logits"][4]  # (T, N)
    text = page.locator(".panel .image").inner_text()
    prediction = logits[-1].argmax()
    assert "Image\ntest image 68" in text
    assert "Label\nc4" in text
    assert f"Prediction\n{measures['class_names'][prediction]} ({'right' if prediction == 4 else 'wrong'}" in text
    table = page.eval_on_selector_all(
        ".image tbody tr", "rows => rows.map(r => [...r.cells].slice(1).map(c => c.textContent))"
    )
    drawn = np.array([[float(v.replace("−", "-")) for v in row] for row in table])
    np.testing.assert_allclose(drawn, logits.T, atol=0.051)
    pixels = page.eval_on_selector(
        ".thumbs label:nth-child(5) canvas", "c => [...c.getContext('2d').getImageData(0, 0, 8, 8).data]"
    )
    np.testing.assert_allclose(np.reshape(pixels, (8, 8, 4))[..., 0], measures["instance_image"][4, 0], atol=1)


PIXELS = """(canvas, m) => {
  const size = canvas.width / m, context = canvas.getContext("2d"), found = [];
  for (let i = 0; i < m; i++)
    for (let j = 0; j < m; j++) found.push(...context.getImageData(j * size, i * size, 1, 1).data);
  return found;
}"""


@pytest.mark.browser
def test_similarity_matrices_are_sorted_by_class(open_page, runs):
    import matplotlib as mpl

    page, measures = open_page(link(cell="1-2", step=3)), runs.first.measures
    order = np.argsort(measures["similarity_label"], kind="stable")
    labels = measures["similarity_label"][order]
    inner = np.flatnonzero(np.r_[True, labels[1:] == labels[:-1]])  # rows with no line between classes at their start
    for i, matrix in enumerate((measures["similarity_student"][2, 1], measures["similarity_teacher"][2])):
        matrix = matrix[np.ix_(order, order)]
        canvas = page.locator("canvas.similarity").nth(i)
        data = canvas.evaluate(PIXELS, M)
        drawn = np.reshape(data, (M, M, 4))[..., :3][np.ix_(inner, inner)]
        others = matrix[~np.eye(M, dtype=bool)]
        scaled = (matrix - others.min()) / np.ptp(others)
        expected = 255 * mpl.colormaps["cividis"](scaled[np.ix_(inner, inner)])[..., :3]
        assert abs(drawn - expected).max() < 6
        assert "sorted by class" in canvas.get_attribute("aria-label")


@pytest.mark.browser
def test_keys_do_everything(open_page, runs):
    page, attention = open_page(), runs.first.measures["attention"]
    page.locator("#epoch").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert_drawn(page, attention[2].mean(0))
    assert page.locator("#epoch").get_attribute("aria-valuetext") == "epoch 3 of 5"
    page.get_by_role("group", name="Time step", exact=True).get_by_role("radio", name="mean").focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")  # the focus stays on the choice
    assert_drawn(page, attention[2, 1])
    page.locator('.cell[tabindex="0"]').focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    focused = "document.querySelector('.sastc-explorer').shadowRoot.activeElement.getAttribute('aria-label')"
    assert page.evaluate(focused).startswith("stage2 to block3")
    assert page.locator(".behind").is_visible()
    assert (
        page.locator('[role="status"]').inner_text()
        == "Similarity matrices of stage2 and block3 are shown after the heat map."
    )
    page.keyboard.press("Escape")
    assert page.locator(".behind").is_hidden()
    assert page.evaluate(focused).startswith("stage2 to block3")
    assert page.locator('.cell[tabindex="0"]').count() == 1


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_play_walks_to_the_last_epoch_and_then_tells(open_page, runs, motion):
    page = open_page(link(epoch=4), reduced_motion=motion)
    told = page.locator('[role="status"]')
    told.filter(has_text="Epoch 4 of 5").wait_for(state="attached")
    page.get_by_role("button", name="Play").click()
    page.get_by_role("button", name="Pause").wait_for()
    page.get_by_role("button", name="Play").wait_for()
    assert_drawn(page, runs.first.measures["attention"][-1].mean(0))
    told.filter(has_text="Epoch 5 of 5").wait_for(state="attached")


@pytest.mark.slow
@pytest.mark.browser
def test_files_hold_what_is_shown(open_page, runs):
    page = open_page(link(epoch=2, step=1, against="first", run2=runs.second.name))

    def save(kind):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Save {kind}").click()
        return open(download.value.path(), "rb").read()

    import io

    import pandas as pd

    rows = pd.read_csv(io.BytesIO(save("CSV")))
    for run in (runs.first, runs.second):
        own = rows[rows.run == run.name]
        for name, column in (("attention", "weight"), ("distance", "distance"), ("cka", "cka")):
            np.testing.assert_allclose(own[column], run.measures[name][1, 0].ravel(), rtol=1e-4, atol=2e-5)
        difference = run.measures["attention"][1, 0] - run.measures["attention"][0, 0]
        np.testing.assert_allclose(own.difference, difference.ravel(), atol=3e-5)
    content = json.loads(save("JSON"))
    assert [row["weight"] for row in content["rows"]] == pytest.approx(rows.weight.tolist())
    assert content["runs"][0]["highest_possible"] == pytest.approx(attention_bounds(3)[1])
    from xml.etree import ElementTree

    svg = ElementTree.fromstring(save("SVG"))
    assert len(svg.findall(".//*[@class='cell']")) == 24
    assert "var(" not in ElementTree.tostring(svg, "unicode")
    assert save("PNG").startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_serious_problem_of_accessibility(open_page, runs, theme):
    two = dict(run=runs.first.name, run2=runs.second.name, images="image", image=1, step=2, cell="1-1")
    for state in (two, dict(images="class", against="class", class2=3)):
        page = open_page(link(**state))
        page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        for summary in page.locator("summary:visible").all():
            summary.click()
        assert not violations(page, "minor", "moderate", "serious", "critical")


def contrast(first, second):
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return np.dot(linear, [0.2126, 0.7152, 0.0722])

    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_widths_and_themes(open_page, runs, theme, width):
    state = dict(run=runs.first.name, run2=runs.second.name, images="image", cell="1-1")
    for against in ("none", "first"):
        page = open_page(link(**state, against=against, epoch=2), width=width)
        before = page.locator("svg.chart text").first.get_attribute("fill")
        page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        assert (page.locator("svg.chart text").first.get_attribute("fill") == before) == (theme == "light")
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        right = page.eval_on_selector_all(
            ".root svg, .root button, .root select", "all => all.map(e => e.getBoundingClientRect().right)"
        )
        assert max(right) <= width
        assert all(contrast(c[4], c[5]) >= 4.5 for c in cells(page)[2])
        boxes = page.eval_on_selector_all(".panel", "all => all.map(p => p.getBoundingClientRect().top)")
        assert (boxes[0] == boxes[1]) == (width == 1440)


@pytest.mark.browser
def test_served_pages_work_too(open_page, site, runs):
    with served(site.parent) as base:
        page = open_page(link(epoch=2), address=f"{base}/explorer.html")
        assert_drawn(page, runs.first.measures["attention"][1].mean(0))


@pytest.mark.browser
def test_in_jupyterlab_a_refresh_keeps_the_state_and_leaves_the_address_alone(open_page, runs, tmp_path):
    """JupyterLab puts the html into the page and then starts copies of its scripts."""
    folder = tmp_path / "growing"
    shutil.copytree(runs.training.path, folder / "quick" / runs.training.name)
    lab = tmp_path / "lab.html"
    lab.write_text("<!doctype html><body data-jp-theme-light='false'><div id='out'></div></body>")
    page = open_page()
    show = """html => {
      const out = document.getElementById('out');
      out.innerHTML = html;
      for (const old of out.querySelectorAll('script')) {
        const copy = document.createElement('script');
        for (const { name, value } of old.attributes) copy.setAttribute(name, value);
        copy.textContent = old.textContent;
        old.replaceWith(copy);
      }
    }"""
    page.evaluate("document.body.setAttribute('data-jp-theme-light', 'false')")
    page.evaluate("document.documentElement.removeAttribute('data-theme')")
    page.evaluate("document.querySelector('main').innerHTML = '<div id=out></div>'")
    explorer = explore(folder)
    page.evaluate(show, explorer.to_html())
    page.wait_for_selector(".cell")
    page.get_by_role("radio", name="2", exact=True).check(force=True)
    record(folder, extras=False, complete=False, epochs=4, timesteps=2, seed=2)
    page.evaluate(show, explorer.refresh().to_html())
    page.wait_for_selector(".cell")
    assert_drawn(page, explorer.runs[0].measures["attention"][-1, 1])  # the step as chosen, the newest epoch
    assert "#" not in page.url
    assert page.evaluate("getComputedStyle(document.querySelector('.sastc-explorer')).colorScheme") == "dark"


@pytest.mark.browser
def test_the_slider_stops_at_the_epochs_that_are_kept(open_page, tmp_path):
    run = record(tmp_path / "long", epochs=60, timesteps=7)
    (tmp_path / "long.html").write_text(PAGE.format(explore(run).to_html(150_000)), encoding="utf-8")
    kept = pack_run(run, 150_000)["arrays"]["attention_instance"]["epochs"]
    wanted = next(e for e in range(1, 61) if e not in kept)
    near = min(kept, key=lambda e: abs(e - wanted))
    page = open_page(link(epoch=wanted, images="image", image=2), address=(tmp_path / "long.html").as_uri())
    note = page.get_by_text(f"Of these weights epoch {wanted} is not kept; the nearest, {near}, is shown.")
    assert note.is_visible()
    slider = page.locator("#epoch")
    assert slider.get_attribute("max") == str(len(kept))
    for place in (1, len(kept) // 2, len(kept)):
        slider.fill(str(place))
        epoch = kept[place - 1]
        assert slider.get_attribute("aria-valuetext") == f"epoch {epoch} of 60"
        assert f"Epoch {epoch} of 60 ·" in page.locator(".facts-line").inner_text()
        assert_drawn(page, run.measures["attention_instance"][epoch - 1, 2].mean(0))
        distance = float(re.search(r"distance ([\d.]+)", cells(page)[2][0][3])[1])
        assert distance == pytest.approx(run.measures["distance"][epoch - 1].mean(0)[0, 0], rel=0.006)
    assert note.is_hidden()
    page.get_by_role("group", name="Test images", exact=True).get_by_role("radio", name="mean").check(force=True)
    assert int(slider.get_attribute("max")) > len(kept)


@pytest.mark.browser
def test_of_two_runs_the_one_without_an_epoch_names_its_nearest(open_page, runs, tmp_path):
    long = record(tmp_path / "long", epochs=60, timesteps=7)
    short = record(tmp_path / "long", epochs=7, timesteps=2)
    html = explore([short, long]).to_html(150_000)
    (tmp_path / "two.html").write_text(PAGE.format(html), encoding="utf-8")
    kept = [set(run["arrays"]["attention_instance"]["epochs"]) for run in data_of(html)["runs"]]
    epoch = min(kept[0] - kept[1])
    state = dict(run=short.name, run2=long.name, images="image", epoch=epoch)
    page = open_page(link(**state), address=(tmp_path / "two.html").as_uri())
    assert f"Epoch {epoch} of 7 ·" in page.locator(".facts-line").nth(0).inner_text()
    second = page.locator(".facts-line").nth(1).inner_text()
    assert re.search(rf"Epoch \d+ of 60, the nearest kept to {epoch} ·", second)


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1440])
def test_matrices_open_in_sight_with_names_and_a_scale(open_page, runs, width):
    page = open_page(link(run=runs.first.name), width=width)
    page.set_viewport_size({"width": width, "height": 700})
    cell = page.locator('.cell[data-s="3"][data-a="0"]')
    cell.scroll_into_view_if_needed()
    cell.click()
    heat, behind = page.locator("svg.heat").bounding_box(), page.locator(".behind").bounding_box()
    beside = width == 1440
    assert (behind["x"] > heat["x"] + heat["width"]) == beside
    assert (behind["y"] > heat["y"] + heat["height"]) == (not beside)
    assert behind["y"] < 700 - 100, "not below the screen"
    labels = np.sort(runs.first.measures["similarity_label"])
    names = [str(runs.first.measures["class_names"][c]) for c in dict.fromkeys(labels)]
    shown = page.locator(".classes").first.locator("span").all_text_contents()
    assert shown
    assert [name for name in names if name in shown] == shown, "in the order of the rows"
    image = page.locator("canvas.similarity").first.bounding_box()
    for name in shown:
        (rows,) = np.nonzero(labels == list(runs.first.measures["class_names"]).index(name))
        middle = image["y"] + (rows[0] + rows[-1] + 1) / 2 / M * image["height"]
        box = page.locator(".classes").first.get_by_text(name, exact=True).bounding_box()
        assert box["y"] + box["height"] / 2 == pytest.approx(middle, abs=2)
    others = runs.first.measures["similarity_student"][:, 3].mean(0)[~np.eye(M, dtype=bool)]
    low, high = re.match(
        r".*dark (\S+) to light (\S+) off", page.locator("svg.ramp").first.get_attribute("aria-label")
    ).groups()
    spread = float(np.ptp(others))
    assert float(low) == pytest.approx(float(others.min()), abs=0.02 * spread)
    assert float(high) == pytest.approx(float(others.max()), abs=0.02 * spread)


@pytest.mark.browser
def test_on_a_phone_time_step_and_epoch_stay_in_sight_and_the_rest_is_folded(open_page, runs):
    page = open_page(width=390)
    one_class = page.get_by_role("radio", name="one class")
    assert one_class.count() == 0, "not offered while folded"
    page.get_by_role("radio", name="2", exact=True).check(force=True)
    assert_drawn(page, runs.first.measures["attention"][-1, 1])
    page.get_by_text("Choose run and images").click()
    one_class.check(force=True)
    assert_drawn(page, runs.first.measures["attention_class"][-1, 0, 1])
    page.locator("svg.chart").first.scroll_into_view_if_needed()
    bar = page.locator(".stay").bounding_box()
    assert 0 <= bar["y"] < 100
    assert bar["height"] < 130
    assert open_page(width=1440).get_by_text("Choose run and images").is_hidden()


@pytest.mark.browser
def test_a_link_leads_to_the_explorer_not_to_the_top(open_page, runs, tmp_path):
    (tmp_path / "far.html").write_text(
        PAGE.format(f"<div style='height:3000px'></div>{explore(runs.folder).to_html()}"), encoding="utf-8"
    )
    page = open_page(link(epoch=2), address=(tmp_path / "far.html").as_uri())
    assert page.evaluate("scrollY") > 2000
    assert open_page(address=(tmp_path / "far.html").as_uri()).evaluate("scrollY") == 0


def test_a_run_that_cannot_be_read_does_not_hide_the_others(tmp_path):
    good, bad = record(tmp_path), record(tmp_path, seed=1)
    (bad.path / "config.json").write_text("")
    with pytest.warns(UserWarning, match=r"left out: .*config.json is damaged"):
        explorer = explore(tmp_path)
    assert [run.name for run in explorer.runs] == [good.name]
    with pytest.raises(RunError, match=r"config.json is damaged"):
        explore(bad.path)


def test_a_page_of_no_budget_and_a_history_cut_short(tmp_path):
    run = record(tmp_path)
    assert data_of(explore(run.path).to_html(1000))["runs"][0]["epochs"] == E
    text = (run.path / "history.csv").read_text()
    (run.path / "history.csv").write_text(text[: text.rindex(",") + 1])
    assert len(data_of(explore(run.path).to_html())["runs"][0]["accuracy"]) == E - 1


def test_settings_that_all_runs_share_are_not_named(tmp_path):
    runs = [record(tmp_path, timesteps=2, mlp_dim=64, seed=s, detach_sim=s == 1) for s in (0, 1)]
    page = data_of(explore(runs).to_html())
    assert [run["other"] for run in page["runs"]] == ["none of its own", "detach_sim=true"]
    assert page["examples"] == [], "the book's are given to it"
    assert all(run["title"].count("mlp_dim") == 1 for run in page["runs"])


def test_a_teacher_that_sees_each_frame_has_matrices_by_step(tmp_path):
    run = record(tmp_path, timesteps=2, layers=(4, 3))
    arrays = dict(run.measures)
    arrays["similarity_teacher"] = np.stack([arrays["similarity_teacher"], 2 * arrays["similarity_teacher"]])
    write_arrays(run.path / "measures.npz", arrays)
    (packed,) = data_of(explore(run).to_html())["runs"]
    names = {name for name in packed["arrays"] if name.startswith("similarity_teacher")}
    assert names == {f"similarity_teacher_{t}_{a}" for t in range(2) for a in range(3)}
