"""Tables 1, 3 and 5: readings of Eq. 1 from recorded mismatch, and the proof on photographs."""

import io
import math

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from companion.pages import grid, stm, table3
from sastc.config import METHODS
from sastc.experiments import load_experiment
from sastc.records import run_path, write_arrays, write_json


@pytest.fixture
def plan(request):
    def load(name, scale="quick"):
        return load_experiment(request.config.rootpath / "experiments" / f"{name}.yaml", scale)

    return load


def arrays(method, seed, epochs=12):
    """Mismatch and attention of a made-up run, (E, T=2, S=2, A=3)."""
    random = np.random.default_rng([METHODS.index(method), seed])
    mse = random.uniform(1, 9, (epochs, 2, 2, 3))
    attention = random.uniform(0.1, 1, mse.shape)
    attention /= attention.sum(-1, keepdims=True)
    return dict(mismatch_mse=mse, mismatch_euclidean=np.sqrt(mse) * 4) | (
        dict(attention=attention) if method == "sastc" else {}
    )


@pytest.fixture
def recorded(plan, tmp_path):
    """Table 5's slim runs of the first pair, seeds 0 and 1, with made-up measures."""
    experiment = plan("stm", "slim")
    for config in (c for c in experiment.runs if c.student == "vgg11" and c.seed < 2):
        folder, measures = run_path(config, tmp_path), arrays(config.method, config.seed)
        curve = [math.log(epoch.mean()) for epoch in measures["mismatch_mse"]]
        write_json(folder / "config.json", config.to_dict())
        write_arrays(folder / "measures.npz", measures)
        (folder / "history.csv").write_text("epoch,stm\n" + "".join(f"{i},{v}\n" for i, v in enumerate(curve, 1)))
        write_json(folder / "metrics.json", {"accuracy": 50.0, "stm": float(np.mean(curve[-10:]))})
    return experiment, tmp_path


def by_loops(method, seed, choice):
    """A reading of Eq. 1, written out over epochs, steps and pairs."""
    measures, own = arrays(method, seed), arrays("sastc", seed)["attention"]
    chosen = {"all": [(s, a) for s in range(2) for a in range(3)], "one_to_one": [(0, 0), (1, 2)], "last": [(1, 2)]}
    found = []
    for epoch in range(2, 12):
        total = weight = 0.0
        for t in range(2):
            for s, a in chosen[choice.options.get("pairs", "all")]:
                weighted = choice.weights == "all" or (choice.weights == "own" and method == "sastc")
                w = own[epoch, t, s, a] if weighted else 1.0
                total += w * measures[f"mismatch_{choice.distance}"][epoch, t, s, a]
                weight += w
        base = {"e": math.e, "2": 2, "10": 10, "none": None}[choice.options.get("log_base", "e")]
        found.append(math.log(total / weight, base) if base else total / weight)
    return sum(found) / 10


def test_every_reading_of_eq_1_against_loops(recorded):
    rows = stm.collect(*recorded)
    rows = dict(stm.pairs(rows))["VGG-11 & ResNet-19, T=2, CIFAR-10"]
    found = stm.scores(rows)
    assert len(found) == len(stm.CHOICES) * 4 * 2
    for choice in stm.CHOICES:
        for method in METHODS:
            for seed in (0, 1):
                value = found.query("choice == @choice.words and method == @method and seed == @seed").stm.item()
                assert value == pytest.approx(by_loops(method, seed, choice), rel=1e-5), (choice, method, seed)
    first = found[found.choice == stm.CHOICES[0].words].set_index(["method", "seed"]).stm
    for row in rows[rows.complete].itertuples():
        assert first[row.method, row.seed] == pytest.approx(row.stm, rel=1e-5), "the first reading is what runs record"


def test_ranking_says_which_reading_changes_the_order():
    words = [choice.words for choice in stm.CHOICES[:3]]
    values = {words[0]: (4, 3, 2, 1), words[1]: (8, 6, 4, 2), words[2]: (1, 3, 2, 4)}
    found = pd.DataFrame(
        [dict(choice=c, method=m, seed=s, stm=v + 0.1 * s) for c, row in values.items() for s in (0, 1)
         for m, v in zip(METHODS, row, strict=True)]
    )  # fmt: skip
    ranked = stm.ranking(found).set_index("choice")
    assert list(ranked.loc[words].same) == [True, True, False]
    assert ranked.order[words[0]] == "SASTC < Feature KD < KD < Baseline"
    assert ranked.order[words[2]] == "Baseline < Feature KD < KD < SASTC"
    assert ranked.kd[words[1]] == pytest.approx(6.05)
    page = stm.ranking_table("A & B", found, "x")
    assert page.count("<strong>") == 1


def test_table_5_has_the_papers_values_and_every_cell(recorded, plan, tmp_path):
    page = stm.table(stm.collect(plan("stm", "paper"), tmp_path / "none"))
    paper = pd.read_csv(grid.parts.PAPER / "stm_scores.csv")
    for value in paper.stm_score[paper.table == 5]:
        assert f"paper {value:.2f}" in page
    assert page.count('class="missing"') == 12
    ours = stm.table(stm.collect(*recorded))
    scores = [np.mean([math.log(e.mean()) for e in arrays("kd", s)["mismatch_mse"][-10:]]) for s in (0, 1)]
    assert f"{np.mean(scores):.3f} ± {np.std(scores, ddof=1):.3f}" in ours
    assert "paper 16.49" in ours, "the paper's own pairs are there, not run"


def test_curves_and_sentences(recorded):
    runs = stm.collect(*recorded)
    (axis,) = stm.curves(runs).axes
    line = next(line for line in axis.lines if line.get_label() == "SASTC")
    curve = np.mean([[math.log(e.mean()) for e in arrays("sastc", s)["mismatch_mse"]] for s in (0, 1)], axis=0)
    assert list(line.get_ydata()) == pytest.approx(list(curve))
    lines = stm.sentences(runs)
    assert lines[0].startswith("VGG-11 & ResNet-19, T=2, CIFAR-10: ")
    assert lines[1].startswith("SASTC's score minus that of another method (95 % intervals): Baseline ")
    scores = {m: rows.sort_values("seed").stm.to_numpy() for m, rows in runs[runs.complete].groupby("method")}
    gap = scores["sastc"] - scores["kd"]
    half = 12.706205 * np.std(gap, ddof=1) / math.sqrt(2)  # t(0.975, 1)
    mean = gap.mean()
    told = f"KD {mean:+.4f} [{mean - half:+.4f}, {mean + half:+.4f}] (n=2, "
    assert told.replace("-", "−") in lines[1]
    assert "ResNet-18 & WRN-28-4, T=2, CIFAR-10 is not run." in lines


def test_notes_say_what_is_averaged_and_who_has_another_learning_rate(recorded):
    runs = stm.collect(*recorded)
    averaged, rates = stm.notes(runs)
    curves = [[math.log(e.mean()) for e in arrays(m, s)["mismatch_mse"][-10:]] for m in METHODS for s in (0, 1)]
    means = np.mean(curves, axis=1).reshape(len(METHODS), 2).mean(1)
    assert averaged == (
        "VGG-11 & ResNet-19, T=2, CIFAR-10: the scores are means from epoch 3 on of only 12, which is most of the "
        "training (the paper's: the last 10 of 240). In these epochs the score of one run varies by up to "
        f"{max(np.ptp(curve) for curve in curves):.3f}; the methods' means lie within {np.ptp(means):.3f}."
    )
    assert "learning rates of their own (Baseline 0.2, KD 0.025, Feature KD 0.05, SASTC 0.05)" in rates
    assert len(stm.notes(runs.assign(learning_rate=0.1))) == 1, "the same for all"
    for path in runs.path[runs.complete]:  # a long training
        (path / "history.csv").write_text("epoch,stm\n" + "".join(f"{i},1.0\n" for i in range(1, 21)))
    assert len(stm.notes(runs)) == 1


def test_rows_name_the_data_of_the_record_and_the_teacher(recorded):
    runs = stm.collect(*recorded)
    for path in runs.path[runs.complete]:
        facts = {"data": {"name": "CIFAR-10 (JPEG copy)"}, "teacher": {"accuracy": 60.11}}
        write_json(path / "provenance.json", facts)
    page = stm.table(stm.collect(*recorded))
    assert 'VGG-11 &amp; ResNet-19, T=2, CIFAR-10 (JPEG copy) <span class="seeds">teacher: 60.11 %</span>' in page
    assert "ResNet-18 &amp; WRN-28-4, T=2, CIFAR-10<" in page, "not run"


def test_the_pairs_that_are_run_are_named(recorded, plan, tmp_path):
    told = stm.pairs_run(stm.collect(*recorded))
    assert told == "Pairs that are run: VGG-11 & ResNet-19, T=2, CIFAR-10. 0 of Table 5's 3 are among them."
    quick = plan("stm")
    for config in quick.runs[:4]:
        write_json(run_path(config, tmp_path) / "config.json", config.to_dict())
        write_json(run_path(config, tmp_path) / "metrics.json", {"accuracy": 50.0, "stm": 1.0})
    told = stm.pairs_run(stm.collect(quick, tmp_path))
    assert told == "Pairs that are run: VGG-11 & ResNet-32x4, T=3, Digits. 1 of Table 5's 3 are among them."
    nothing = stm.pairs_run(stm.collect(quick, tmp_path / "none"))
    assert nothing == "Pairs that are run: none. 0 of Table 5's 3 are among them."


@pytest.mark.parametrize("scale", ["quick", "paper"])
def test_table_3_has_every_row_of_the_paper(plan, tmp_path, scale):
    experiment = plan("table3", scale)
    for config in (*experiment.runs, *experiment.teachers):
        folder = run_path(config, tmp_path)
        write_json(folder / "config.json", config.to_dict())
        accuracy = {"teacher": 70.0, "sastc": 62.0}.get(config.method, 60.0) + (config.student == "resnet34")
        write_json(folder / "metrics.json", {"accuracy": accuracy, "stm": 1.0})
    page = table3.table(experiment, tmp_path)
    assert page.count("<tr>") == 7
    assert 'class="missing"' not in page
    smoke = table3.smoke_table(table3.collect(experiment, tmp_path))
    assert page.count("not run") == (6 if scale == "quick" else 0), "digits are no ImageNet"
    assert bool(smoke) == (scale == "quick")
    assert smoke.count("<tr>") == (7 if scale == "quick" else 0)
    assert "62.00" in (smoke or page)
    assert "paper" not in smoke
    assert ("paper 62.52, ours −0.52" if scale == "paper" else "paper 62.52</span>") in page
    assert ("paper 68.69, ours −5.69" if scale == "paper" else "paper 68.69</span>") in page
    assert ("paper 73.48, ours −3.48" if scale == "paper" else "paper 73.48</span>") in page


def test_tiles_are_the_photographs_and_the_test_is_its_right_part():
    from sklearn.datasets import load_sample_image

    photo = load_sample_image("flower.jpg").astype(int)
    seen = {"train": set(), "test": set()}
    for split, name, i, content in table3.tiles():
        r, c = divmod(i, 640 // 32)
        seen[split].add(c)
        if name == "flower" and i % 50 == 0:
            tile = np.asarray(Image.open(io.BytesIO(content)), dtype=int)
            original = photo[32 * r : 32 * r + 32, 32 * c : 32 * c + 32]
            assert np.abs(tile - original).mean() < 12, "JPEG loses little"
    assert max(seen["train"]) < min(seen["test"]) == 15


def test_pipeline_trains_on_photographs_in_folders_and_shards_give_the_same(plan, tmp_path):
    options = dict(epochs=1, teacher_epochs=1, timesteps=2, width=1 / 32, stm_batches=1, probe_batches=1)
    proof = table3.prove(plan("table3"), tmp_path, **options)
    assert proof.same is True
    assert proof.images == (390, 130)
    teacher, student = proof.runs
    assert teacher.config.method == "teacher"
    assert student.config.dataset == "imagefolder"
    assert student.provenance["teacher"]["run"] == teacher.name
    page = table3.proof_table(proof)
    assert f"{student.metrics['accuracy']:.2f}" in page
    assert page.count("history.csv</a>") == 2
