"""The benchmark runs, and what it compares is equal. No time is asserted."""

import gc
import json
import math
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import handwritten, measure, neuron, report, settings, steps, targets, training  # noqa: E402
from benchmarks.plain import PlainCalibration, PlainLIF  # noqa: E402
from benchmarks.run import CASES, _options  # noqa: E402
from sastc.calibration import SelfAttentiveCalibration  # noqa: E402
from sastc.losses import kd_loss, sastc_loss  # noqa: E402
from sastc.neurons import LIF  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    out = tmp_path_factory.mktemp("benchmarks") / "new" / "cpu.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), "--tiny", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    for case in CASES:
        assert f"\n{case}\n" in done.stdout
    return json.loads(out.read_text(encoding="utf-8"))


def test_the_file_may_be_in_a_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _options(["--out", "~/cpu.json"]).out == tmp_path / "cpu.json"


def test_every_case_is_written(record):
    assert {row["case"] for row in record["cases"]} == set(CASES)
    for row in record["cases"]:
        if "median" not in row:
            assert row["note"]
            continue
        assert 0 < row["minimum"] <= row["median"] < math.inf
        assert len(row["seconds"]) == 1
        assert row["implementation"] != "plain" or row["ratio"] == 1


def test_record_names_hardware_and_versions(record):
    made = record["provenance"]
    assert made["device"]
    assert made["threads"] == 1
    assert torch.__version__.startswith(made["versions"]["torch"])
    assert made["command"].startswith("python benchmarks/run.py --tiny")
    assert set(record["peers"]) == {"spikingjelly", "snntorch"}
    assert all(rate > 0 for rate in [*record["peak_flops"].values(), record["copy_bandwidth"]])


def test_steps_have_all_measures(record):
    for case in ("kd_step", "sastc_step"):
        rows = [row for row in record["cases"] if row["case"] == case]
        assert {row["implementation"] for row in rows} == {"plain", "library"}
        for row in rows:
            assert row["flops"] > 0
            assert 0 < row["kept_bytes"] < row["peak_bytes"]
            if row["implementation"] == "plain":
                assert 0 < row["convolution_share"] < 1
            assert row["peak_share"] == pytest.approx(
                row["flops"] / row["median"] / record["peak_flops"][row["precision"]]
            )
            if row["implementation"] == "library":
                assert ("attention" in row["error"]) == (case == "sastc_step")


def test_recomputed_blocks_at_imagenets_size_keep_less(record):
    kept, recomputed, decoder = (row for row in record["cases"] if row["case"] == "imagenet")
    assert (kept["checkpoint"], recomputed["checkpoint"]) == ("none", "blocks")
    assert recomputed["peak_bytes"] < kept["peak_bytes"]
    assert decoder["images_per_second"] == pytest.approx(decoder["images"] / decoder["median"])
    assert "64 px" in report.html_table(record, "imagenet")


def test_report_shows_every_case(record):
    for case in CASES:
        rows = [row for row in record["cases"] if row["case"] == case]
        table = report.html_table(record, case)
        assert table.count("<tr>") == len(rows) + 1
        assert report.hardware(record).split(",")[0] in table
    assert "Not measured here" in report.html_table(record | {"cases": []}, "lif")
    assert record["provenance"]["command"] in report.facts(record)
    axes = report.scaling_figure(record).axes
    assert [len(axis.lines) for axis in axes] == [2 + 4] * 4  # two lines, and a range at each of two values
    with pytest.raises(FileNotFoundError, match="make it with"):
        report.load(["nowhere.json"])


def test_measuring_a_case_again_keeps_the_others(record, tmp_path):
    file = tmp_path / "cpu.json"
    file.write_text(json.dumps(record), encoding="utf-8")
    again = record | {"cases": [], "measured": {}}
    report.keep(again, file, ["lif", "epoch"])
    assert {row["case"] for row in again["cases"]} == set(CASES) - {"lif", "epoch"} == set(again["measured"])
    again["measured"]["lif"] = record["measured"]["lif"] | {"commit": "another"}
    assert "<li>lif: " in report.facts(again)
    assert "commit another" in report.facts(again)
    faster = {name: 2 * rate for name, rate in record["peak_flops"].items()}  # of the later session, without lif
    rate = f"fp32 {record['peak_flops']['fp32'] / 1e9:,.0f} GFLOP/s"
    assert report.facts(record | {"peak_flops": faster}).count(f"peak (the best matrix product then): {rate}") == 1
    assert "to be measured again" not in report.facts(record)
    wrong = [row | {"kept_bytes": row["peak_bytes"] + 1} for row in record["cases"] if row["case"] == "kd_step"]
    assert "to be measured again" in report.facts(record | {"cases": wrong})
    before = {name: value for name, value in record.items() if name != "measured"}  # as records once were
    assert report.measured(before) == dict.fromkeys(CASES, record["measured"]["lif"])
    with pytest.raises(SystemExit, match="--out"):
        report.keep(again | {"settings": record["settings"] | {"width": 3}}, file, ["lif"])


def test_rows_of_one_size_have_one_memory_floor(record, tmp_path):
    rows = [row for row in record["cases"] if "floor_seconds" in row]
    file = tmp_path / "cpu.json"
    file.write_text(json.dumps(record), encoding="utf-8")
    loaded = [row for row in report.load([file])[0]["cases"] if "floor_seconds" in row]
    for row, read in zip(rows, loaded, strict=True):
        assert read["floor_seconds"] == min(r["floor_seconds"] for r in rows if r["input_bytes"] == row["input_bytes"])


def test_targets_are_computed_from_the_record(record):
    found = targets.targets(record)
    assert len(found) == 11
    missing = {t.what for t in found if t.found is None}
    assert all("SpikingJelly" in what or "ResNet-18" in what or "C++" in what for what in missing)
    assert targets.html_table(record).count("<tr>") == 12
    rows = [dict(implementation=name, case="lif", timesteps=2, layout="contiguous", precision="fp32") for name in
            ("plain", "library", "handwritten")]  # fmt: skip
    for row, median, kept in zip(rows, (9.0, 1.0, 0.9), (40, 10, 10), strict=True):
        row |= dict(median=median, ratio=9.0 / median, kept_bytes=kept, floor_seconds=0.5)
    steps = [
        dict(case="kd_step", student="vgg11", timesteps=2, precision="fp32", median=1.0, convolution_share=0.8)
        | dict(implementation=name, width=width, ratio=ratio)
        for name, width, ratio in [("plain", 1, 1), ("library", 1, 1.1), ("library", 1, 1.2), ("library", 0.1, 9)]
    ]
    found = {t.what: t for t in targets.targets({"cases": rows + steps})}
    assert found["LIF forward and backward, fp32: speed-up, the least over T and layouts"].reason.endswith(
        "2.00 times the time that memory needs at least, the plain loop 18.00 times"
    )
    values = [(t.found, t.met) for t in found.values() if t.found is not None]
    assert values == [(9.0, True), (0.9, False), (0.25, True), (1.2, True)]
    assert "1.25 times as fast" in next(t.reason for t in found.values() if "KD step" in t.what and "fp32" in t.what)


def test_peak_and_share_of_a_known_run():
    x = torch.randn(256, 256)

    def run():
        return (x @ x).exp().sum()  # two results of 256 KiB at a time

    assert measure.peak_bytes(run, CPU) == pytest.approx(2 * x.nbytes, rel=0.01)
    left: list = []
    measure.peak_bytes(lambda: left.append(x.exp()), CPU)
    assert measure.peak_bytes(lambda: (left.clear(), run()), CPU) == pytest.approx(2 * x.nbytes, rel=0.01)
    assert measure.convolution_share(lambda: x @ x @ x @ x) > measure.convolution_share(x.exp)


@pytest.mark.parametrize("precision", list(settings.DTYPES))
@pytest.mark.parametrize("timesteps", [1, 7])
def test_handwritten_neuron_is_the_librarys(timesteps, precision):
    by_hand = handwritten.build()
    if by_hand is None:
        pytest.skip("no C++ compiler")
    shape = (timesteps, 3, 4, 21, 19)
    x, grad = (neuron._draw(shape, "channels_last", settings.DTYPES[precision], CPU, seed) for seed in (0, 1))
    neuron.check(by_hand, LIF(), x, grad)
    neuron.check(by_hand, LIF(), x, grad.contiguous())


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("precision", list(settings.DTYPES))
@pytest.mark.parametrize("timesteps", [1, 2, 7])
def test_plain_neuron_is_the_librarys(timesteps, precision, layout):
    shape = (timesteps, 3, 4, 5, 5)
    x, grad = (neuron._draw(shape, layout, settings.DTYPES[precision], CPU, seed) for seed in (0, 1))
    assert x[0].is_contiguous(memory_format=getattr(torch, layout.replace("contiguous", "contiguous_format")))
    neuron.check(PlainLIF(), LIF(), x, grad)


@pytest.mark.parametrize("other", [PlainLIF(decay=0.6), PlainLIF(threshold=1.1), PlainLIF(gamma=0.4)])
def test_check_of_neurons_sees_other_work(other):
    x, grad = (neuron._draw((3, 4, 4, 5, 5), "contiguous", torch.float32, CPU, seed) for seed in (0, 1))
    with pytest.raises(AssertionError, match="differ"):
        neuron.check(other, LIF(), x, grad)
    with pytest.raises(AssertionError, match="spikes differ"):  # with the same gradients
        neuron.check(lambda currents: PlainLIF()(currents) + 1, LIF(), x, grad)


def test_plain_calibration_is_the_librarys():
    generator = torch.Generator().manual_seed(0)
    students, teachers = [(4, 8, 8), (6, 4, 4), (8, 2, 2)], [(5, 16, 16), (7, 4, 4)]
    library = SelfAttentiveCalibration(students, teachers, 6).double()
    plain = PlainCalibration(students, teachers, 6).double().copy_from(library)
    spikes = [(torch.rand(3, 6, *s, generator=generator) < 0.3).double() for s in students]
    targets = [torch.randn(6, *a, generator=generator, dtype=torch.float64) for a in teachers]
    results = []
    for module in (library, plain):
        leaves = [f.clone().requires_grad_() for f in spikes]
        attention, distances = module(leaves, targets)[:2]
        (attention * distances).sum().backward()
        gradients = [leaf.grad for leaf in leaves] + [p.grad for _, p in sorted(module.query.named_parameters())]
        results.append([attention, distances, *gradients])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


def test_plain_loss_is_the_librarys():
    generator = torch.Generator().manual_seed(0)
    logits, soft = torch.randn(2, 6, 10, generator=generator, dtype=torch.float64)
    labels = torch.arange(6)
    attention, distances = torch.rand(2, 3, 6, 4, 2, generator=generator, dtype=torch.float64)
    expected = kd_loss(logits, soft, labels)
    torch.testing.assert_close(training.loss(logits, soft, labels, None, None, beta=9), expected)
    expected = expected + 9 * sastc_loss(attention, distances)
    torch.testing.assert_close(training.loss(logits, soft, labels, attention, distances, beta=9), expected)


@pytest.mark.parametrize("method", ["kd", "sastc"])
def test_check_of_steps_sees_a_difference(method):
    small = settings.tiny(CPU)
    made = training.training(small, student="vgg11", teacher="resnet19", method=method)
    x, y = training.first_batch(made)
    plain = training.plain_step(made)
    errors = training.check(made.step, plain, x, y)
    assert max(errors.values()) < 1e-4
    with torch.no_grad():
        plain.student.stages["stage2"][0].conv[1].weight.mul_(1.01)  # a batch norm's
    with pytest.raises(AssertionError, match="differ"):
        training.check(made.step, plain, x, y)


def test_plain_step_updates_like_the_library():
    """A whole step, end to end: of networks so small that rounding flips no spike."""
    small = settings.tiny(CPU)
    made = training.training(small, student="vgg11", teacher="resnet19", method="sastc")
    x, y = training.first_batch(made)
    plain = training.plain_step(made)
    training.library_step(made.step, x, y)()
    plain(x, y)
    for found, expected in zip(
        plain.calibration.query.parameters(), made.step.calibration.query.parameters(), strict=True
    ):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-3, atol=1e-5)


def test_kept_bytes_counts_each_storage_once():
    x = torch.randn(1000, requires_grad=True)
    assert measure.kept_bytes(lambda: (x.exp() * x).sin()) == 3 * 4000  # exp(x), x, and the product
    assert measure.kept_bytes(lambda: (x.exp() * x).sin(), [x]) == 2 * 4000
    assert measure.kept_bytes(lambda: [x.sin() * x, x.exp()][-1]) == 4000  # what belongs to no result is freed
    library = LIF()
    currents = torch.randn(4, 5, 6, requires_grad=True)
    assert measure.kept_bytes(lambda: PlainLIF()(currents)) == (3 * 4 - 2) * 30 * 4  # the last reset is freed
    assert measure.kept_bytes(lambda: library(currents)) <= currents.numel() * 4


def test_interleaving_takes_turns():
    order = []
    runs = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = measure.interleave(runs, 2, CPU)
    assert "".join(order) == "abc" + "abc" + "cba"
    assert {name: len(values) for name, values in seconds.items()} == dict(a=2, b=2, c=2)
    row = measure.summary([2.0, 4.0, 1.0], [4.0, 4.0, 4.0])
    assert (row["median"], row["minimum"], row["ratio"], row["ratio_low"], row["ratio_high"]) == (2, 1, 2, 1, 4)


def test_measuring_kept_bytes_keeps_nothing():
    x = torch.randn(256, requires_grad=True)
    assert measure.kept_bytes(lambda: x.sigmoid()) == x.nbytes  # sigmoid keeps its own result
    made: list[weakref.ref] = []

    def run():
        result = x.sigmoid()
        made.append(weakref.ref(result))
        return result

    measure.kept_bytes(run)
    gc.collect()
    assert made[0]() is None


def test_steps_take_turns_with_those_of_an_earlier_version(tmp_path, monkeypatch):
    """A tiny record against this very version: everything that the page shows is there, and both lose the same."""
    monkeypatch.setattr(steps, "earlier", lambda commit, folder: ROOT)
    out = tmp_path / "new" / "steps.json"
    words = ["--precision", "fp32", "--width", "0.0625", "--pairs", "vgg11/resnet19", "--batch-size", "4"]
    assert steps.main([*words, "--methods", "teacher", "sastc", "--rounds", "1", "--out", str(out)]) == out
    record = json.loads(out.read_text())
    assert [row["method"] for row in record["cases"]] == ["teacher", "sastc"]
    for row in record["cases"]:
        assert row["same_loss"]
        assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
        assert 0 < row["convolution_share"] < 1
        assert min(row["convolution_rate"], row["peak_rate"]) > 0
        assert min(row["one_run"], row["side_by_side"]) > 0
    table = report.steps_table(record)
    assert "VGG-11 &amp; ResNet-19, T=2, width 0.0625, fp32" in table
    assert table.count("<tr>") == 1 + len(record["cases"])
    row = record["cases"][0] | dict(seconds_before=3.0, seconds_now=2.0, convolution_share=0.5)
    for older in ({}, dict(convolution_rate=3e9, peak_rate=4e9)):
        measured = {k: v for k, v in row.items() if not k.endswith("_rate")} | older
        shown = report.steps_table(record | {"cases": [measured]})
        assert "<td>3.00</td><td>50 %</td>" in shown, "three seconds before, one now if all else took no time"
        assert f"<td>{'75 %' if older else '–'}</td>" in shown


def test_steps_that_are_not_measured_again_stay(tmp_path, monkeypatch):
    made = dict(seconds_before=2.0, seconds_now=1.0, convolution_share=0.5)
    about = dict(zip(steps.WHAT, ("vgg11", "resnet19", "kd", "bf16", 0.25), strict=True))
    rows = [about | made, about | made | dict(method="sastc")]
    out = tmp_path / "steps.json"
    words = ["--out", str(out)]
    monkeypatch.setattr(steps, "earlier", lambda commit, folder: ROOT)
    for measured in (rows, [rows[1] | dict(seconds_now=0.5)]):
        monkeypatch.setattr(steps, "cases", lambda options, before, found=tuple(measured): iter(found))
        monkeypatch.setattr(steps, "LINE", "")
        steps.main(words)
    record = json.loads(out.read_text())
    assert [(row["method"], row["seconds_now"]) for row in record["cases"]] == [("kd", 1.0), ("sastc", 0.5)]
    assert {row["commit"] for row in record["cases"]} == {record["provenance"]["commit"]}
    steps.main([*words, "--against", "HEAD"])
    assert len(json.loads(out.read_text())["cases"]) == 1, "rows against another version are not kept"


def test_the_neuron_against_its_yardstick_in_words():
    row = dict(case="lif", precision="fp32", timesteps=2, layout="contiguous", shape=[2, 4, 8], median=1.0)
    made = dict(device="a machine", threads=2, device_type="cpu", versions=dict(torch="2"))
    times = {"library": [3.0, 2.2, 2.0], "handwritten": [2.0, 2.0, 2.0]}
    rows = [row | dict(implementation=name, seconds=seconds) for name, seconds in times.items()]
    rows += [r | dict(case="call", seconds=[1e-6 * s for s in r["seconds"]]) for r in rows]
    text = report.yardstick(dict(provenance=made, cases=rows))
    assert "1.10 to 1.10 times as long in fp32" in text
    assert "At 32 neurons, where the call is all there is, 1.10 times: 0 µs more" in text
    assert not report.yardstick(dict(provenance=made, cases=rows[:1])), "nothing to compare with"


def test_an_earlier_version_is_unpacked(tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    found = steps.earlier("HEAD", tmp_path)
    assert (found / "sastc" / "__init__.py").is_file()


def test_a_step_that_cannot_be_measured_is_an_error():
    with steps.Worker(ROOT, 1) as worker, pytest.raises(RuntimeError, match="cannot be measured"):
        worker.ask(fields={"method": "nonsense"})
