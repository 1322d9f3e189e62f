import base64
import io
import itertools
import json
import math
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from made_up_runs import plan, record
from scipy.stats import spearmanr

from companion import figures
from companion.html import plain
from companion.pages import choices, combination, controls, energy, fisher, headlines, parts, runtime, sam
from companion.pages import verdicts_claims as claims
from sastc.config import ConfigError, RunConfig
from sastc.experiments import load_experiment
from sastc.records import RunError

T, S, A, P = 3, 2, 3, 4


def downloaded(page):
    """The CSV file that a table's link holds."""
    return pd.read_csv(io.BytesIO(base64.b64decode(re.search(r'base64,([^"]+)"', page)[1])))


# Pieces


def test_table_escapes_and_its_download_holds_the_frame():
    frame = pd.DataFrame({"name": ["a & <b>", "c"], "value": [1.234, math.nan], "n": [1234, 2]})
    page = parts.table(frame, "Caption.", "file", {"who": "name", "v": "value", "n": lambda r: f"<i>{r.n}</i>"})
    assert "a &amp; &lt;b&gt;" in page
    assert "<td>1.23</td>" in page
    assert "<td>–</td>" in page
    assert "<i>1234</i>" in page
    pd.testing.assert_frame_equal(downloaded(page), frame)


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "–"), (math.inf, "–"), (0.0, "0.00"), (-1.5, "−1.50"), (2e-7, "2e-07"), (True, "yes"), (12345, "12,345")],
)
def test_text(value, words):
    assert parts.text(value) == words


def test_figure_is_an_image_with_words_and_its_vector_file():
    import matplotlib.pyplot as plt

    drawing, axis = plt.subplots()
    axis.plot([0, 1])
    page = parts.figure(drawing, "curve", 'what "it" shows')
    assert 'alt="what &quot;it&quot; shows"' in page
    assert 'download="curve.svg"' in page
    assert base64.b64decode(re.search(r'href="data:image/svg\+xml;base64,([^"]+)"', page)[1]).startswith(b"<?xml")
    assert not plt.fignum_exists(drawing.number)


def test_switch_names_what_is_changed():
    base = RunConfig(method="sastc")
    assert parts.switch(base, base) == parts.switch(base.replace(seed=3), base) == ""
    assert parts.switch(base.replace(seed=3, teacher_seed=3, data_seed=1), base) == "", "another teacher is no setting"
    assert parts.switch(base.replace(gamma=0.3), base) == "gamma = 0.3"
    assert parts.switch(base.replace(qk_norm=False), base) == "qk_norm = false"
    assert parts.switch(base.replace(variant="released"), base) == "variant = released"
    assert parts.switch(base.replace(gamma=0.3, seed=1, detach_sim=True), base) == "gamma = 0.3, detach_sim = true"


def test_experiments_read_the_runs_of_others(tmp_path):
    (tmp_path / "one.yaml").write_text("title: a\nnotebook: a\nquick: [{method: kd, seed: [0, 1]}]\n")
    (tmp_path / "two.yaml").write_text("title: b\nnotebook: b\nof: [one]\nquick: [{method: [kd, sastc]}]\n")
    (tmp_path / "none.yaml").write_text("title: c\nnotebook: c\n")
    (tmp_path / "lost.yaml").write_text("title: d\nnotebook: d\nof: [nothing]\n")
    two = load_experiment(tmp_path / "two.yaml")
    assert [(c.method, c.seed) for c in two.runs] == [("kd", 0), ("sastc", 0), ("kd", 1)]
    assert two.needs_runs
    assert not load_experiment(tmp_path / "two.yaml", "slim").runs
    assert not load_experiment(tmp_path / "none.yaml").needs_runs
    with pytest.raises(ConfigError, match=r"nothing\.yaml"):
        load_experiment(tmp_path / "lost.yaml")


# Effects of settings


def effects_runs(results):
    base = RunConfig(method="sastc")
    changes = {"": [90.0, 91.0, 92.0], "gamma": [91.0, 93.0, 95.0], "taps": [80.0, 70.0, math.nan]}
    settings = {"": {}, "gamma": {"gamma": 0.3}, "taps": {"taps": "stem_and_stages"}}
    configs = []
    for name, accuracies in changes.items():
        for seed, accuracy in enumerate(accuracies):
            config = base.replace(seed=seed, **settings[name])
            configs.append(config)
            if not math.isnan(accuracy):
                record(results, config, accuracy=accuracy, stm=accuracy / 10)
    return parts.frame(plan(*configs), results)


def test_effects_are_paired_over_seeds(tmp_path):
    runs = effects_runs(tmp_path)
    found = choices.effects(runs).set_index("switch")
    gamma, taps = found.loc["gamma = 0.3"], found.loc["taps = stem_and_stages"]
    assert (gamma.accuracy.mean, gamma.accuracy.n) == (2.0, 3)
    assert gamma.accuracy.half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)  # deviation 1, t(0.975, 2)
    assert gamma.stm.mean == pytest.approx(0.2)
    assert (taps.accuracy.mean, taps.accuracy.n) == (-15.5, 2)
    page = choices.effects_table(runs)
    assert "other layers or units" in page
    assert page.count("seed <a") == 3
    words = " ".join(choices.sentences(runs))
    assert "corrected for 2 differences (Holm)" in words


def test_a_field_is_compared_in_every_method(tmp_path):
    accuracies = {("kd", "fp32"): [80.0, 82.0], ("kd", "bf16"): [80.99, 83.01], ("sastc", "fp32"): [90.0, 92.0]}
    accuracies["sastc", "bf16"] = [89.0, 93.0]
    configs = []
    for (method, precision), values in accuracies.items():
        for seed, accuracy in enumerate(values):
            configs.append(RunConfig(method=method, precision=precision, seed=seed))
            record(tmp_path, configs[-1], accuracy=accuracy, stm=1.0)
    runs = parts.frame(plan(*configs), tmp_path)
    found = choices.in_every_method(runs, "precision").set_index("switch")
    assert list(found.index) == ["KD, bf16", "SASTC, bf16"]
    assert [d.mean for d in found.accuracy] == pytest.approx([1.0, 0.0])
    half = 12.706205 * math.sqrt(2) / math.sqrt(2)  # differences -1 and 1: deviation √2, t(0.975, 1)
    assert [d.half for d in found.accuracy] == pytest.approx([0.01 * half, half], abs=1e-6)
    page = choices.methods_table(runs, "precision")
    assert page.count("<tr>") == 1 + 4
    assert "n=2: cannot say from two seeds" in page
    assert page.count("seed <a") == 4


def test_gains_are_between_runs_of_the_same_settings(tmp_path):
    accuracies = {"kd": {"": [80.0, 82.0], "gamma": [85.0, 85.0], "released": [70.0, 71.0]}}
    accuracies["sastc"] = {"": [81.0, 85.0], "gamma": [79.9, 80.1], "released": [90.0, math.nan]}
    settings = {"": {}, "gamma": {"gamma": 0.3}, "released": {"variant": "released"}}
    configs = []
    for method, of_method in accuracies.items():
        for name, values in of_method.items():
            for seed, accuracy in enumerate(values):
                configs.append(RunConfig(method=method, seed=seed, **settings[name]))
                if not math.isnan(accuracy):
                    record(tmp_path, configs[-1], accuracy=accuracy, stm=1.0)
    runs = parts.frame(plan(*configs), tmp_path)
    found = choices.gains(runs).set_index("switch")
    assert list(found.index) == ["as preset", "gamma = 0.3", "variant = released"]
    assert [d.mean for d in found.kd] == pytest.approx([2.0, -5.0, 20.0])
    assert [d.n for d in found.kd] == [2, 2, 1]
    assert [d.n for d in found.baseline] == [0, 0, 0]
    assert found.kd.iloc[0].half == pytest.approx(12.706205, abs=1e-5)  # differences 1 and 3: deviation √2, t(0.975, 1)
    preset, gamma, released = choices.verdict_of_each(runs)
    assert "not compared with the baseline, not to be judged from two seeds against KD (+2.00 [−10.71, +1" in preset
    assert "from two seeds against KD (−5.00 [" in gamma
    assert "One seed decides nothing: SASTC has +20.00 points against KD (n=1)." in released
    assert headlines.other_choices(choices.gains(runs)) == (
        "Where every method has the same other setting, SASTC is not judged beside KD in 2 of 2 other settings "
        "(n=1 to 2)."
    )
    first, second = choices.changed(plan(*configs))
    assert first == "gamma = 0.3 (was 1.0)"
    assert second.startswith("<em>variant = released</em>: ")
    assert "reshuffle = false (was true)" in second
    assert "partial_batch = keep (was drop)" in second  # KD's; SASTC drops it in both


# Attention


def attention_run(results, accuracy=90.0, seed=0, easiest=False, **changes):
    """Hand-made weights of one epoch: T=1, two student layers, three teacher layers, two images.

    The first layer prefers its easiest layer and the most alike, the second the most alike, or its `easiest`.
    """
    eta = np.array([[[[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]]]])  # (E, T, S, A)
    arrays = {
        "attention": eta,
        "attention_instance": np.stack([eta[:, 0] + 0.05, eta[:, 0] - 0.05], 1)[:, :, None],  # (E, P, T, S, A)
        "distance": np.array([[[[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]]]]),
        "cka": np.array([[[[0.9, 0.5, 0.1], [0.1, 0.2, 0.3]]]]),
        "teacher_layers": np.array(["a", "b", "c"]),
        "student_layers": np.array(["x", "y"]),
    }
    if easiest:
        arrays["distance"][..., 1, :] = [3.0, 2.0, 1.0]
        arrays["cka"][..., 1, :] = [0.1, 0.3, 0.2]
    return record(results, RunConfig(method="sastc", seed=seed, **changes), arrays, accuracy=accuracy)


def test_facts_of_attention_by_hand(tmp_path):
    found = controls.facts(attention_run(tmp_path))
    assert found["cells"] == 2
    assert found["easiest"] == 0.5  # the first cell alone prefers its easiest layer
    assert found["likest"] == 1.0
    assert found["easiest_is_likest"] == 0.5
    assert found["rank_correlation"] == pytest.approx(1.0)
    assert found["between_images"] == pytest.approx(0.05 * math.sqrt(2))  # two images at ± 0.05
    assert math.isnan(found["between_steps"]), "one step has no spread"
    assert found["bound"] == 0.0
    rows = [[0.55, 0.35, 0.25], [0.45, 0.25, 0.15]]  # both images, each in two orders
    entropy = np.mean([-sum(p * math.log(p) for p in row) for row in rows]) / math.log(3)
    assert found["entropy"] == pytest.approx(entropy, rel=1e-5)


def test_cells_of_one_run_and_the_sentence_on_likeness(tmp_path):
    run = attention_run(tmp_path)
    page = combination.cells_table(run)
    assert page.count("<tr>") == 3, "a heading and two cells"
    data = pd.read_csv(io.BytesIO(base64.b64decode(re.search(r'base64,([^"]+)"', page)[1])))
    assert len(data) == run.measures["attention"][-1].size
    np.testing.assert_allclose(data.weight.to_numpy().reshape(2, -1).sum(1), 1.0, rtol=1e-6)
    assert "in 2 of 2; 1 would be chance. Cells" in controls.likeness([run])
    assert controls.likeness([]) == ""


def test_rank_correlation_is_spearmans():
    one, other = np.random.default_rng(0).normal(size=(2, 5, 4, 6))
    one[0, 0, :3] = 1.0  # ties
    found = controls.rank_correlation(one, other)
    for place in np.ndindex(5, 4):
        assert found[place] == pytest.approx(spearmanr(one[place], other[place]).statistic)
    assert np.isnan(controls.rank_correlation(np.ones((1, 3)), np.arange(3.0)[None])).all()


def test_controls_name_their_runs_and_need_two_seeds(tmp_path):
    configs = [RunConfig(method="sastc", seed=s, attention=a) for a in ("learned", "uniform") for s in (0, 1)]
    configs += [RunConfig(method="sastc", detach_sim=True)]
    one = parts.frame(plan(*configs), tmp_path)
    assert list(dict.fromkeys(controls.names(one))) == ["learned", "uniform", "detach_sim = true"]
    attention_run(tmp_path)
    assert controls.answer(parts.frame(plan(*configs), tmp_path)).startswith("Cannot say")
    attention_run(tmp_path, seed=1)
    runs = parts.frame(plan(*configs), tmp_path)
    words = controls.answer(runs)
    assert words == (
        "Attention is in 50 % of cells (in every run, which gives no interval) largest on the teacher layer that is "
        "easiest to imitate, and on the layer most similar by CKA in 100 % of cells (in every run, which gives no "
        "interval); chance is 33 %. "
        "Accuracy with other weights than the learned: not run: uniform, random, untrained and CKA."
    )
    assert controls.between_seeds(runs)["learned"] == 0.0
    told = controls.sentences(runs)
    assert "0.071 between images of one run and 0 between seeds" in told[-1], "one step has no spread"
    for page in (controls.controls_table(runs), controls.spread_table(runs)):
        assert "learned" in page


def test_small_deviations_are_read_without_exponents_and_titles_do_not_overlap(tmp_path):
    assert [plain(value) for value in (0.0, 1.4e-5, 0.0707, 0.15, math.nan)] == ["0", "0.000014", "0.071", "0.15", "–"]
    changes = [{}, {"attention": "uniform"}, {"detach_sim": True}, {"target_norm": "layer"}]
    for changed in changes:
        attention_run(tmp_path, **changed)
    runs = parts.frame(plan(*(RunConfig(method="sastc", **changed) for changed in changes)), tmp_path)
    with plt.rc_context():
        figures.style()
        figure = controls.weights_figure(runs)
        figure.canvas.draw()
    titles = [axis.title for axis in figure.axes]
    assert [title.get_text() for title in titles[2:]] == ["learned,\nno loss through them", "learned,\nequal variances"]
    places = [title.get_window_extent() for title in titles]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(places))


def test_controls_of_one_seed_are_named_as_such(tmp_path):
    accuracies = {"learned": [58.0, 57.0, 59.0], "uniform": [57.0, 56.5, 59.5], "untrained": [55.0, 54.0, 55.0],
                  "cka": [58.75]}  # fmt: skip
    configs = []
    for attention, values in accuracies.items():
        for seed, accuracy in enumerate(values):
            configs.append(RunConfig(method="sastc", seed=seed, attention=attention))
            attention_run(tmp_path, accuracy, seed=seed, attention=attention, easiest=attention == "learned")
    runs = parts.frame(plan(*configs), tmp_path)
    # Learned less uniform 1, 0.5, -0.5 (deviation 0.7638), less untrained 3, 3, 4 (0.5774); t(0.975, 2) = 4.302653.
    half, other = (4.302653 * s / math.sqrt(3) for s in (0.763763, 0.577350))
    assert controls.answer(runs) == (
        "Attention is always largest on the teacher layer that is easiest to imitate, and on the layer most similar by "
        "CKA in 50 % of cells (in every run, which gives no interval); chance is 33 %. "
        "Accuracy with other weights than the learned (n=3): less accurate: untrained; not distinguishable: uniform; "
        f"of too few seeds to judge: CKA; not run: random. To those not distinguishable learned weights add at "
        f"most {1 / 3 + half:.2f} points."
    )
    lines = controls.sentences(runs)
    for name, mean, reach, says in (
        ("Uniform", -1 / 3, half, "not distinguishable"),
        ("Untrained", -10 / 3, other, "worse"),
    ):
        gap = f"{mean:+.2f} [{mean - reach:+.2f}, {mean + reach:+.2f}]".replace("-", "−")
        assert f"{name}, minus learned weights: {gap} points of accuracy (n=3: {says})." in lines
    ((_, share, _),) = claims.most_alike(runs)
    assert (share.mean, share.n) == (pytest.approx(100 * (1 / 2 - 1 / 3)), 3)
    assert math.isnan(share.half), "the same in all seeds"
    found = {what.partition(", VGG-11 & ResNet-19, T=2")[0]: d.n for what, d, _ in claims.attention_controls(runs)}
    assert found == {"learned − uniform": 3, "learned − random": 0, "learned − untrained": 3, "learned − CKA": 1}


def test_other_changes_of_learned_weights_are_a_family_of_their_own(tmp_path):
    accuracies = {  # gaps 1.3 and 1.2 with t of 7.5 and 6.9: p of 0.017 and 0.020, below 0.05 if doubled, not tripled
        "": [50.0, 50.0, 50.0],
        "uniform": [51.0, 51.3, 51.6],
        "random": [50.9, 51.2, 51.5],
        "detach": [50.1, 49.0, 51.2],
    }
    configs = []
    for control, values in accuracies.items():
        for seed, accuracy in enumerate(values):
            change = dict(detach_sim=True) if control == "detach" else dict(attention=control or "learned")
            configs.append(RunConfig(method="sastc", seed=seed, **change))
            attention_run(tmp_path, accuracy, seed=seed, **change)
    runs = parts.frame(plan(*configs), tmp_path)
    changes = controls.changes_of_accuracy(runs)
    p = {c: d.p for c, d in changes.items()}
    assert [changes[c].corrected for c in ("uniform", "random")] == pytest.approx([2 * p["uniform"]] * 2)
    assert changes["random"].judgement == "better"
    assert changes["detach_sim = true"].corrected == p["detach_sim = true"]
    told = controls.families(runs)
    assert "for the 2 kinds of weights from elsewhere, and apart from them for the 1 other change of" in told
    words = "not distinguishable, corrected p 0.052"
    assert told.endswith(f"As one family of 3, these would be judged otherwise: uniform ({words}), random ({words}).")
    assert told in controls.sentences(runs)
    assert controls.families(runs[~runs.detach_sim]) == ""


def test_shares_are_judged_beside_chance():
    assert controls._judged(pd.Series([0.5, 0.6, 0.7]), 1 / 3) == ("60 %", "more than chance")
    for value, share in ((0.0, "0 %"), (2 / 3, "67 %"), (1.0, "100 %")):
        assert controls._judged(pd.Series([value] * 3), 1 / 3) == (share, "in every run, which gives no interval")
    assert controls._judged(pd.Series([1.0]), 1 / 3) == ("100 %", "cannot say from one seed")


# Energy


def test_energy_sums_layers_and_compares_at_equal_steps(tmp_path):
    def layers(scale):
        counts = dict(macs=[scale * 10.0, 0.0], acs=[0.0, scale * 100.0], input_rate=[1.0, 0.2], dense_macs=[10, 100])
        energies = dict(energy_nj=[scale * 4000.0, scale * 1000.0], special_energy_nj=[scale * 4000.0, scale * 10.0])
        return pd.DataFrame(dict(layer=["stem", "head"], kind="conv", input=["image", "spikes"]) | counts | energies)

    configs = [RunConfig(method=m, seed=s) for m in ("baseline", "kd", "sastc") for s in (0, 1)]
    for config in configs:
        record(tmp_path, config, layers=layers({"baseline": 3, "kd": 1, "sastc": 2}[config.method] + 0.1 * config.seed))
    record(tmp_path, configs[2].teacher_config(), layers=layers(10))
    counted = energy.totals(plan(*configs), tmp_path)
    rows = energy.summary(counted).set_index("method")
    assert rows.energy_uj["kd"] == pytest.approx(5.25)
    assert rows.special_energy_uj["sastc"] == pytest.approx(4.01 * 2.05)
    assert rows.over_kd["sastc"] == pytest.approx(2.05 / 1.05)
    assert rows.over_teacher["kd"] == pytest.approx(0.105)
    gain = energy.differences(counted).set_index("other").difference["kd"]
    assert gain.n == 2
    assert gain.mean == pytest.approx(100 * ((2 / 1 - 1) + (2.1 / 1.1 - 1)) / 2)
    said = energy.additions(counted)  # multiplications 4 and 4.4 of 5 and 5.5; additions 2 and 2.1 beside 1 and 1.1
    assert "80 % of KD's energy here (4.20 of 5.25 µJ at T=2) are their multiplications, not as many in SASTC's" in said
    assert said.endswith("In additions alone, which follow the spikes, SASTC takes 1.95 (T=2) times KD's.")
    assert "multiplications, as many in SASTC's networks" in energy.additions(counted.assign(macs=5.0))
    assert energy.sentences(counted)[-1] == said
    top, _ = energy.layer_figure(counted, 2).axes
    assert not top.patches, "a bar on a logarithmic axis has no meaningful length"
    assert [list(line.get_ydata()) for line in top.lines] == [[12000, 3000], [4000, 1000], [8000, 2000]]
    assert [line.get_marker() for line in top.lines] == ["s", "o", "D"]
    assert energy.layer_figure(counted, 7) is None
    page = energy.layer_table(counted, 2, "Ours: here.")
    assert "sums over the steps. Ours: here. Download" in page
    data = downloaded(page)
    assert data.method.tolist() == ["baseline", "kd", "sastc"] * 2, "layer by layer"
    assert data.energy_nj.tolist() == [12000, 4000, 8000, 3000, 1000, 2000]
    assert "<td>20.00</td>" in page, "the rate in percent"
    assert energy.layer_table(counted, 7, "Ours: here.") == ""
    assert "over seeds. Ours: here. Download" in energy.differences_table(counted, "Ours: here.")
    assert "10.5 to 30.5 % of their teacher's energy" in energy.share(counted)
    page = energy.ours_table(counted, "Ours: here.")
    assert "the teacher is ResNet-19. Ours: here. Download" in page
    assert "teacher/digits-resnet19-teacher" in page


def test_papers_energy_keeps_its_numbers():
    page = energy.papers_table()
    assert "12511.20" in page
    assert "15.71" in page


# Time


def test_times_are_relative_to_kd_of_the_same_pair(tmp_path):
    configs = [RunConfig(method=m, teacher=a) for m in ("kd", "sastc") for a in ("resnet19", "wrn28_4")]
    configs.append(RunConfig(method="baseline"))
    seconds = {("kd", "resnet19"): 2.0, ("kd", "wrn28_4"): 4.0, ("sastc", "resnet19"): 3.0, ("sastc", "wrn28_4"): 10.0}
    for config in configs:
        record(tmp_path, config, train_seconds_per_epoch=seconds.get((config.method, config.teacher), 1.0))
    times = runtime.ours(plan(*configs), tmp_path)
    rows = runtime.relative(times)
    assert sorted(rows[rows.method == "sastc"].over_kd) == [1.5, 2.5]
    assert sorted(rows[rows.method == "baseline"].over_kd) == [0.25, 0.5]
    assert "a CPU, 1 thread" in runtime.ours_table(times)
    paper = runtime.relative(runtime.papers()).set_index(["student", "teacher", "timesteps", "method"])
    assert paper.over_kd["VGG-11", "ResNet-19", 2, "sastc"].item() == pytest.approx(99.78 / 43.50)
    assert "99.78&nbsp;/&nbsp;13.24" in runtime.papers_table()


def test_older_records_without_memory_show_a_dash(tmp_path):
    old, new = RunConfig(method="kd"), RunConfig(method="sastc")
    record(tmp_path, old)
    record(tmp_path, new, inference_seconds=0.25, peak_memory_bytes=700 * 2**20)
    times = runtime.ours(plan(old, new), tmp_path)
    drawn = runtime.ours_table(times)
    cells = [re.findall("<td[^>]*>(.*?)</td>", row) for row in drawn.split("<tr>")[2:]]
    assert drawn.count('<td data-head="peak memory (MiB)">') == 2, "cards on a phone"
    assert [row[1] for row in cells] == ["KD", "SASTC"]
    assert [(row[2], row[5], row[6]) for row in cells] == [("–", "–", "–"), ("–", "0.25", "700")]
    assert "here: 700 to 700 MiB. The paper's text says 0.8 to 1.2 GB" in " ".join(runtime.sentences(times))


def test_benchmarks_are_read_if_there_are_any(tmp_path):
    assert "python benchmarks/run.py" in runtime.benchmarks_table(tmp_path)
    step = dict(case="sastc_step", implementation="library", student="vgg11", teacher="resnet19", timesteps=2)
    step |= dict(precision="fp32", median=0.5, minimum=0.4, kept_bytes=2**20)
    step |= dict(layout="channels_last", width=1.0, batch_size=16)
    others = [dict(implementation="plain"), dict(layout="contiguous"), dict(case="lif"), dict(case="epoch")]
    rows = [step, *(step | other for other in others), step | dict(width=0.125), step | dict(batch_size=128)]
    (tmp_path / "cpu.json").write_text(json.dumps({"provenance": {"device": "a GPU"}, "cases": rows}))
    found = runtime.benchmarks(tmp_path)
    assert list(found.case) == ["sastc_step"] * 3
    page = runtime.benchmarks_table(tmp_path)
    labels = [tuple(re.findall("<td[^>]*>(.*?)</td>", row)[:5]) for row in page.split("<tr>")[2:]]
    assert labels == [("0.125", "16", "fp32", "2", "SASTC"), *(("1", b, "fp32", "2", "SASTC") for b in ("16", "128"))]
    assert page.count(">1</td>") == 2 + 3, "two widths, three kept"
    assert "a GPU" in page


def test_ratios_pair_seeds_and_prefer_the_cpus_own_seconds(tmp_path):
    """Seed 0 was slowed down by another load, seed 1 has wall-clock seconds alone."""
    seconds = {("kd", 0): (2.0, 1.0), ("sastc", 0): (30.0, 2.5), ("kd", 1): (2.0, None), ("sastc", 1): (8.0, None)}
    configs = [RunConfig(method=method, seed=seed) for method, seed in seconds]
    for config, (wall, cpu) in zip(configs, seconds.values(), strict=True):
        run = record(tmp_path, config, train_seconds_per_epoch=wall)
        columns = dict(epoch=[1, 2]) | (dict(train_cpu_seconds=[cpu - 0.5, cpu + 0.5]) if cpu else {})
        pd.DataFrame(columns).to_csv(run.path / "history.csv", index=False)
    row = runtime.relative(runtime.ours(plan(*configs), tmp_path)).set_index("method").loc["sastc"]
    assert (row.over_kd, row.lowest, row.highest, row.on_cpu, row.n, row.left_out) == (2.5, 2.5, 2.5, 1, 1, 1)
    times = runtime.ours(plan(*configs), tmp_path)
    cells = [re.findall("<td[^>]*>(.*?)</td>", row)[2:5] for row in runtime.ours_table(times).split("<tr>")[2:]]
    assert cells == [
        ['1.00 <span class="seeds">seed 0</span>', "", "2.00"],
        ['2.50 <span class="seeds">seed 0</span>', '2.50 <span class="seeds">(2.50–2.50)</span>', "19.00"],
    ], "CPU seconds are seed 0's, wall-clock seconds those of both"
    said = runtime.sentences(times)[1]
    assert "compared with KD's: 1 by CPU seconds; 1 left out, in which a run has wall-clock seconds alone" in said
    wall_only = plan(*(c for c in configs if c.seed == 1), RunConfig(seed=2), RunConfig(method="kd", seed=3))
    record(tmp_path, RunConfig(seed=2), train_seconds_per_epoch=100.0)
    record(tmp_path, RunConfig(method="kd", seed=3), train_seconds_per_epoch=1.0)
    times = runtime.ours(wall_only, tmp_path)
    row = runtime.relative(times).set_index("method").loc["sastc"]
    assert (row.over_kd, row.on_cpu, row.n) == (4.0, 0, 1), "seeds 2 and 3 have no partner"
    assert (
        "takes 4.00 times KD's (median of 1 case; 4.00 to 4.00 over single seeds) here" in runtime.sentences(times)[1]
    )
    assert runtime.sentences(times)[1].endswith("Each seed is compared with KD's: 1 by wall-clock seconds.")
    assert "longer than KD's in 33 of 39 cases; the others are at T = 7." in runtime.sentences(times)[2]


def test_rows_of_other_data_have_kd_of_their_own_and_days_are_named(tmp_path):
    table2 = load_experiment("experiments/table2.yaml", "quick")
    configs = [c for c in table2.runs if (c.student, c.teacher, c.timesteps) == ("vgg11", "resnet19", 2)]
    configs = [c for c in configs if c.method in ("kd", "sastc") and c.seed < 2]
    seconds = {("kd", 0): 1.0, ("sastc", 0): 2.0, ("kd", 1): 3.0, ("sastc", 1): 7.5}
    for config in configs:
        run = record(tmp_path, config)
        mean = seconds[config.method, config.seed]
        pd.DataFrame(dict(epoch=[1, 2], train_cpu_seconds=mean)).to_csv(run.path / "history.csv", index=False)
        facts = dict(device="a CPU", threads=1, started=f"2026-01-0{1 + config.seed}T00:00:00", data={})
        facts["data"] = dict(name=("Digits", "Digits (copy)")[config.seed], train_images=9, test_images=9)
        (run.path / "provenance.json").write_text(json.dumps(facts))
    assert len(configs) == 4
    times = runtime.ours(plan(*configs), tmp_path)
    rows = runtime.relative(times)
    assert dict(zip(rows.data, rows.over_kd, strict=True))["Digits (copy)"] == 2.5
    page = runtime.ours_table(times)
    assert "<td>Digits (copy)</td>" in page.replace(' data-head="data"', "")
    assert "<td>2026-01-02</td>" in page.replace(' data-head="day"', "")
    assert runtime.same_step(table2, tmp_path) == (
        "The same training takes other CPU seconds on another day: an epoch of KD (VGG-11 and ResNet-19, T=2, 9 "
        "images) 1.00 s (1.00 to 1.00, n=1) on 2026-01-01 with Digits and 3.00 s (3.00 to 3.00, n=1) on 2026-01-02 "
        "with Digits (copy), 3.00 times as many. SASTC's take 2.00 and 2.50 times KD's of the same day."
    )
    assert runtime.same_step(table2, tmp_path / "none") == ""
    said = runtime.sentences(times)[-1]
    assert "differ between days, machines and versions: compare ratios to KD with the same data and T." in said


# Fisher information


def test_fisher_summary_and_differences(tmp_path):
    configs = [RunConfig(method=m, seed=s, fisher_samples=8) for m in ("kd", "sastc") for s in (0, 1, 2)]
    for config in configs:
        last = {"kd": 100.0, "sastc": 10.0}[config.method]
        record(tmp_path, config, {"fisher": np.array([[1.0, 1000.0], [2.0, last]])})
    values = fisher.traces(plan(*configs), tmp_path)
    rows = fisher.summary(values)
    assert list(rows.method) == ["kd"] * 3 + ["sastc"] * 3
    assert list(rows["last"]) == [100] * 3 + [10] * 3
    assert list(rows.change) == [0.1] * 3 + [0.01] * 3
    assert list(rows.one_step) == [2] * 6
    ((other, d),) = fisher.log_differences(values).items()
    assert (other, d.mean, d.n) == ("kd", -1.0, 3)
    told = " ".join(fisher.sentences(values))
    assert "divided by KD's is 0.10 (n=3: cannot say from equal differences)" in told
    # log₁₀ of 1, 1.1 and 1.21 is 0, 0.0414 and 0.0828: deviation 0.0414 of mean -0.9586, t(0.975, 2) = 4.303
    differ = values.assign(trace=values.trace * 1.1 ** (values.seed * (values.method == "sastc")))
    assert "divided by KD's is 0.11 (0.09 to 0.14; n=3: lower)" in " ".join(fisher.sentences(differ))
    falls = "KD falls (× 0.10; highest after epoch 1); SASTC falls (× 0.01; highest after epoch 1)"
    assert f"From the first epoch to the last of 2: {falls}." in told
    assert "from low to high (means over 3 seeds): SASTC 10, KD 100." in told
    assert fisher.of_seeds(values[(values.method == "kd") | (values.seed == 0)]) == "means over 1 to 3 seeds"
    single = fisher.sentences(values[values.seed == 0])
    assert "from low to high (one seed of each method): SASTC 10, KD 100." in " ".join(single)
    assert "Between the 3 seeds of one method the last trace differs by a factor of up to 1.00." in fisher.spread(
        values
    )
    assert "all T steps. Ours: here. Download" in fisher.summary_table(values, "Ours: here.")
    assert len(fisher.panels(values).axes) == 2


def test_fisher_traces_that_rise_and_seeds_that_differ(tmp_path):
    configs = [RunConfig(method="kd", seed=s, fisher_samples=8) for s in (0, 1)]
    for config, trace in zip(configs, ([10.0, 40.0, 20.0], [10.0, 8.0, 5.0]), strict=True):
        record(tmp_path, config, {"fisher": np.array([trace]).T})
    values = fisher.traces(plan(*configs), tmp_path)
    assert "KD rises in 1 of 2 runs (× 0.50 to 2.00; highest after epoch 1 to 2)." in " ".join(fisher.sentences(values))
    assert fisher.spread(values).endswith("a factor of up to 4.00.")
    one = values[values.seed == 0]
    assert "KD rises (× 2.00; highest after epoch 2)." in " ".join(fisher.sentences(one))
    assert fisher.spread(one).startswith("One seed of each method at most")
    assert fisher.spread(values[:0]).startswith("One seed of each method at most")


# Spike activation maps


def sam_runs(results):
    rng = np.random.default_rng(0)
    maps = rng.random((P, T, 2, 2))
    shared = dict(
        instance_index=np.arange(10, 10 + P), instance_label=np.arange(P), class_names=np.array(list("abcdefghij"))
    )
    shared["instance_image"] = rng.integers(0, 255, (P, 1, 4, 4), dtype=np.uint8)
    configs = [RunConfig(method=m, timesteps=T) for m in ("baseline", "sastc")]
    arrays = {"baseline": maps.max() - maps, "sastc": maps}
    for config in configs:
        record(results, config, shared | {"sam_stage1": maps * 0, "sam_stage2": arrays[config.method]})
    record(results, configs[1].teacher_config(), shared | {"cam": maps.sum(1)})
    return plan(*configs), maps


def test_recorded_maps_are_shown_and_others_are_refused_by_name(tmp_path):
    experiment, maps = sam_runs(tmp_path)
    runs = sam.students(experiment, tmp_path)
    teacher = sam.teacher_of(runs, tmp_path)
    assert [r.config.method for r in runs] == ["baseline", "sastc"]
    assert sam.recorded(runs[0]) == [10, 11, 12, 13]
    layer = sam.chosen_layer(runs, "")
    assert layer == "stage2"
    wide = {"sam_a": np.zeros((1, 1, 8, 8)), "sam_b": np.zeros((1, 1, 4, 4)), "sam_c": np.zeros((1, 1, 2, 2))}
    assert sam.chosen_layer([record(tmp_path, RunConfig(method="kd"), wide)], "") == "b"
    with pytest.raises(ConfigError, match="layer='stem': must be one of stage1, stage2"):
        sam.chosen_layer(runs, "stem")
    found, name, label = sam.maps_of(12, layer, runs, teacher)
    np.testing.assert_allclose(found["sastc"], maps[2], rtol=1e-6)
    np.testing.assert_allclose(found["teacher"], maps[2].sum(0), rtol=1e-6)
    assert (name, label, found["image"].shape) == ("c", 2, (4, 4, 1))
    with pytest.raises(RunError, match="image=5: must be one of the recorded 10, 11, 12, 13"):
        sam.maps_of(5, layer, runs, teacher)
    titles = [axis.get_title() for axis in sam.grid([(found, name, label)] * 2).axes]
    steps = [f"t = {t + 1}" for t in range(T)]
    block = ["image: c", "teacher's CAM", *(f"Baseline, {t}" for t in steps), "", "", *(f"SASTC, {t}" for t in steps)]
    assert T > 2, "so methods are the rows"
    assert titles == 2 * block
    few = {name: pictures[:1] if name in ("baseline", "sastc") else pictures for name, pictures in found.items()}
    titles = [axis.get_title() for axis in sam.grid([(few, name, label)]).axes]
    assert titles == ["image: c", "teacher's CAM", "Baseline, t = 1", "SASTC, t = 1"]


def test_likeness_is_a_correlation_with_the_teachers_map(tmp_path):
    experiment, maps = sam_runs(tmp_path)
    values = sam.likeness(experiment, tmp_path).set_index("method").correlation
    assert values["sastc"] == pytest.approx(1.0)
    assert values["baseline"] == pytest.approx(-1.0)
    assert np.isnan(sam.correlation(maps[0] * 0, maps[0].sum(0)))
    assert sam.sentences(sam.likeness(experiment, tmp_path))[0].startswith(
        f"Correlation with the teacher's map, mean over {P} images and 1 seed: "
    )
    page = sam.likeness_table(sam.likeness(experiment, tmp_path), "Ours: here.")
    assert "over recorded images. Ours: here. Download" in page


def test_maps_of_other_images_are_computed_from_weights(tmp_path, tiny):
    import sastc

    config = tiny(method="kd", epochs=1)
    run = sastc.run(config, results=tmp_path, progress=False)
    teacher = sam.teacher_of([run], tmp_path)
    layer, recorded = sam.chosen_layer([run], ""), sam.recorded(run)
    place = recorded[3]
    stored, name, label = sam.maps_of(place, layer, [run], teacher)
    computed, same_name, same_label = sam._computed(place, layer, [run], teacher, "data")
    assert (name, label) == (same_name, same_label)
    np.testing.assert_array_equal(stored["image"], computed["image"])
    np.testing.assert_allclose(stored["kd"], computed["kd"], atol=1e-5)
    np.testing.assert_allclose(stored["teacher"], computed["teacher"], atol=1e-5)
    other = next(i for i in range(100) if i not in recorded)
    assert sam.maps_of(other, layer, [run], teacher)[0]["kd"].shape == stored["kd"].shape
    with pytest.raises(ConfigError, match="image=99999: must be in 0"):
        sam.maps_of(99999, layer, [run], teacher)
