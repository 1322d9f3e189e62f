"""Training, records and recovery, with real processes that are really killed."""

import contextlib
import dataclasses
import errno
import importlib.metadata
import json
import os
import pickle
import platform
import shlex
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import programs
import psutil
import pytest
import torch
from tiny import TINY_SETTINGS

import sastc
from sastc import records
from sastc.__main__ import main
from sastc.config import METHODS, NoEffectError
from sastc.data import normalise
from sastc.distributed import chosen_device
from sastc.probe import Probe
from sastc.records import MEASURES, DivergedError, Run, RunError, find_run, run_path
from sastc.sam import spike_activation_map
from sastc.stm import stm_from_mismatch
from sastc.train import Trainer
from sastc.train.recorder import locked
from sastc.train.trainer import _way_out
from sastc.verify import verify

CPU = torch.device("cpu")
# The only columns that differ between equal runs.
SECONDS = ["train_seconds", "train_cpu_seconds", "inference_seconds", "test_seconds"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture
def run(results):
    return lambda config, **options: sastc.run(config, results=results, progress=False, **options)


def rewrite(run, **metrics):
    """Change the recorded metrics of a run, as if they had been so from the beginning."""
    records.seal(run.path, "metrics.json", records.json_bytes(run.metrics | metrics))


def train_process(results, *settings):
    given = dict(setting.split("=") for setting in (*TINY_SETTINGS, *settings))
    return programs.Program("-m", "sastc", "--results", results, "train", *map("=".join, given.items()))


def test_peak_memory_is_the_most_that_was_resident_in_bytes():
    before = max(psutil.Process().memory_info().rss, records.peak_memory_bytes(CPU))
    block = np.ones(before // 8 + 10_000_000)  # 80 MB more than ever
    peak = records.peak_memory_bytes(CPU)
    assert block.nbytes < peak < 1.1 * (before + block.nbytes)
    del block
    assert records.peak_memory_bytes(CPU) >= peak


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_records(run, tiny, method):
    few = dict(batch_size=16) if method == "sastc" else {}  # as many images as are recorded one by one
    config = tiny(method=method, **few)
    done = run(config)
    assert done.complete
    assert done.config == config
    history, metrics, provenance = done.history, done.metrics, done.provenance
    assert list(history.epoch) == [1, 2]
    assert np.isfinite(history.to_numpy()).all()
    assert metrics["last_accuracy"] == history.test_accuracy.iloc[-1]
    assert metrics["best_accuracy"] == history.test_accuracy.max()
    assert metrics["stm"] == pytest.approx(history.stm.mean())
    assert ("kd_loss" in history) == (method != "baseline")
    assert ("feature_loss" in history) == (method in ("feature_kd", "sastc"))
    total = history.cross_entropy if method == "baseline" else history.kd_loss
    if "feature_loss" in history:
        total = total + config.beta * history.feature_loss
    np.testing.assert_allclose(history.train_loss, total, rtol=1e-5)
    assert ("gradient_cosine" in history) == (method in ("feature_kd", "sastc"))
    teacher = find_run(provenance["teacher"]["run"], done.path.parents[1])
    assert teacher.config == config.teacher_config()
    assert provenance["teacher"]["weights_sha256"] == records.sha256(teacher.path / "weights.pt")
    assert 0 < metrics["inference_seconds"] == pytest.approx(history.inference_seconds.mean())
    assert (history.inference_seconds <= history.test_seconds).all()
    assert psutil.Process().memory_info().rss / 4 < metrics["peak_memory_bytes"] <= records.peak_memory_bytes(CPU)
    assert not list(done.path.glob("checkpoint*"))
    measures = done.measures
    assert {"sam_<layer>" if name.startswith("sam_") else name for name in measures} <= set(MEASURES)
    steps, students, teachers = config.timesteps, 4, 3
    assert measures["cka"].shape == (2, steps, students, teachers)
    assert measures["confusion"].sum() == 360
    assert 100 * measures["confusion"].trace() / 360 == pytest.approx(metrics["last_accuracy"])
    assert measures["accuracy_by_step"][-1] == pytest.approx(metrics["last_accuracy"])
    assert measures["instance_logits"].shape == (16, steps, 10)
    assert measures["sam_stage1"].shape[:2] == (16, steps)
    assert len(measures["similarity_label"]) == measures["similarity_student"].shape[-1] == config.batch_size
    energy = pd.read_csv(done.path / "energy.csv")
    assert energy.layer.iloc[0].startswith("stages.stem")
    assert (energy[energy.input == "spikes"].macs == 0).all()
    assert measures["mismatch_mse"].shape == (2, steps, students, teachers)
    recomputed = stm_from_mismatch(torch.from_numpy(measures["mismatch_mse"][-1]))
    assert recomputed == pytest.approx(history.stm.iloc[-1], rel=1e-5)
    if method == "sastc":
        assert measures["attention"].shape == (2, steps, students, teachers)
        assert measures["attention_class"].shape == (2, 10, steps, students, teachers)
        assert measures["attention_instance"].shape == (2, 16, steps, students, teachers)
        np.testing.assert_allclose(measures["attention"].sum(-1), 1, rtol=1e-5)
        np.testing.assert_allclose(measures["attention_instance"].mean(1), measures["attention"], rtol=1e-4)


@pytest.mark.parametrize(
    ("student", "options"), [("pyramidnet20", {}), ("wrn28_4", {}), ("wrn16_2", {"wrn16_2_variant": "wide_resnet"})]
)
def test_students_that_sum_before_they_fire_record_maps_of_the_neuron_behind(run, tiny, student, options):
    done = run(tiny(student=student, method="baseline", teacher="", epochs=1, threshold=0.1, **options))
    maps = {name: array for name, array in done.measures.items() if name.startswith("sam_")}
    model = sastc.load_model(done)
    assert list(maps) == [f"sam_{model.tap_names[-1]}"], "the other stages have no neuron"
    part = sastc.load_dataset("digits", image_size=8, train_subset=80)
    x = normalise(part.test.images[done.measures["instance_index"]], part.mean, part.std)
    expected = spike_activation_map(model, x, layer="neck.1")
    (found,) = maps.values()
    np.testing.assert_allclose(found, expected.transpose(0, 1), rtol=1e-5)
    assert expected.max() > 0


def test_methods_share_initial_weights_and_order(run, tiny):
    """With a weight of zero on what distillation adds, a distilled student is the baseline, bit for bit."""
    baseline = run(tiny(method="baseline"))
    kd = run(tiny(method="kd", kl_weight=0.0))
    assert baseline.metrics["weights_sha256"] == kd.metrics["weights_sha256"]
    feature = run(tiny(method="sastc", kl_weight=0.0, beta=0.0))
    np.testing.assert_array_equal(feature.history.test_accuracy, baseline.history.test_accuracy)


def test_recorded_run_is_returned_without_work(run, tiny):
    first = run(tiny(method="kd"))
    before = {p.name: p.stat().st_mtime_ns for p in first.path.iterdir()}
    again = run(tiny(method="kd"))
    assert {p.name: p.stat().st_mtime_ns for p in again.path.iterdir()} == before


@pytest.mark.slow
def test_same_config_same_numbers(tiny, tmp_path):
    runs = [sastc.run(tiny(), results=tmp_path / name, progress=False) for name in "ab"]
    assert runs[0].metrics["weights_sha256"] == runs[1].metrics["weights_sha256"]
    first, second = (r.history.drop(columns=SECONDS) for r in runs)
    assert first.equals(second)


def test_load_model_reproduces_the_accuracy(run, tiny):
    done = run(tiny(method="kd"))
    model = sastc.load_model(done)
    dataset = sastc.load_dataset("digits", image_size=8)
    images = (dataset.test.images.float() / 255 - torch.tensor(dataset.mean).view(-1, 1, 1)) / torch.tensor(
        dataset.std
    ).view(-1, 1, 1)
    subset = sastc.load_dataset("digits", image_size=8, train_subset=80)
    assert subset.mean == dataset.mean, "normalisation must not depend on the subset"
    with torch.no_grad():
        correct = (model(images).argmax(-1) == dataset.test.labels).float().mean().item()
    assert 100 * correct == pytest.approx(done.metrics["last_accuracy"], abs=0.6)


def wait_for_epochs(folder, epochs, process):
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        history = folder / "history.csv"
        if history.exists() and history.read_text().count("\n") > epochs:
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    raise AssertionError("no progress")


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_numbers(run, tiny, tmp_path):
    """kill -9 three times, once with the latest checkpoint damaged: history, measures and weights stay the same."""
    settings = "epochs=8", "seed=5", "batch_size=16"  # of smaller batches an epoch takes longer
    config = tiny(epochs=8, seed=5, batch_size=16)
    whole = run(config)
    folder = run_path(config, tmp_path)
    for killing, epochs in enumerate((2, 4, 6)):
        process = train_process(tmp_path, *settings)
        wait_for_epochs(folder, epochs, process)
        process.kill()
        process.wait()
        assert not Run(folder).complete
        if killing == 1:
            content = bytearray((folder / "checkpoint.pt").read_bytes())
            content[len(content) // 2] ^= 1
            (folder / "checkpoint.pt").write_bytes(content)
    process = train_process(tmp_path, *settings)
    _, errors = process.communicate(timeout=120)
    assert process.poll() == 0, errors
    resumed = Run(folder)
    log = (folder / "log.txt").read_text()
    assert log.count("resumed at epoch") == 3
    assert "checkpoint.pt is damaged: not used" in log
    assert resumed.metrics["weights_sha256"] == whole.metrics["weights_sha256"]
    assert resumed.history.drop(columns=SECONDS).equals(whole.history.drop(columns=SECONDS))
    for name, array in whole.measures.items():
        np.testing.assert_array_equal(resumed.measures[name], array)


def test_killed_between_the_renames_of_a_checkpoint(tmp_path):
    records.save_checkpoint(tmp_path, {"epoch": 1})
    os.replace(tmp_path / "checkpoint.pt", tmp_path / "checkpoint.previous.pt")
    assert records.load_checkpoint(tmp_path)[0] == {"epoch": 1}
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    state, notes = records.load_checkpoint(tmp_path)
    assert state == {"epoch": 1}
    assert "damaged" in notes[0]


def test_two_processes_never_write_the_same_run(run, tiny, tmp_path):
    config = tiny(epochs=40, seed=6)
    process = train_process(tmp_path, "epochs=40", "seed=6")
    try:
        wait_for_epochs(run_path(config, tmp_path), 1, process)
        with pytest.raises(RunError, match="being written by another process"):
            sastc.run(config, results=tmp_path, progress=False)
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_full_disk_is_a_clear_error_and_keeps_what_was_recorded(tiny, tmp_path):
    """A limit on file size, which the operating system enforces like a full disk."""
    script = (
        "import resource, sys, sastc\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "from sastc.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    result = programs.run("-c", script, "--results", tmp_path, "train", *TINY_SETTINGS)
    assert result.returncode == 2
    assert f"cannot write {tmp_path}" in result.stderr
    assert os.strerror(errno.EFBIG) in result.stderr
    assert "Traceback" not in result.stderr
    assert not any(r.complete for r in sastc.list_runs(tmp_path))
    assert not list(tmp_path.rglob(".checkpoint*"))
    assert sastc.run(tiny(), results=tmp_path, progress=False).complete


def test_unwritable_folder_is_a_clear_error(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        sastc.run(tiny(), results=tmp_path / "file", progress=False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(batch_size=200), "batch_size=200.*80 images"),
        (dict(method="feature_kd", feature_pairs="5-1"), "^feature_pairs='5-1'.*1..4"),
        (dict(stm_pairs="nearest"), "^stm_pairs='nearest'"),
        (dict(fisher_samples=81), "^fisher_samples=81: must be at most the 80 training images"),
        (dict(student="wrn16_2", wrn16_2_variant="wide_resnet", student_tap="membrane"), "tap='membrane'"),
        (dict(train_subset=1000_000), "train_subset=1000000"),
        (dict(dataset="cifar10", train_subset=0), "cifar10"),
        (dict(teacher_run="nobody"), "^teacher_run='nobody' .*no such run"),
    ],
)
def test_mistakes_show_before_any_work(tiny, tmp_path, monkeypatch, changes, words):
    monkeypatch.delenv("SASTC_DATA", raising=False)
    with pytest.raises((RunError, ValueError, OSError), match=words):
        sastc.run(tiny(**changes), results=tmp_path, data=tmp_path / "nothing", progress=False)
    assert not list(tmp_path.rglob("config.json")), "neither the run nor its teacher may have started"


def test_loss_that_is_not_finite_stops_with_the_epochs_kept(tiny, tmp_path):
    config = tiny(learning_rate=1e30, method="baseline", teacher="", batch_size=16)
    with pytest.raises(RunError, match="not finite in epoch"):
        sastc.run(config, results=tmp_path, progress=False)
    (run,) = sastc.list_runs(tmp_path)
    assert not run.complete
    assert (run.diverged["epoch"], run.diverged["what"]) in [(1, "the loss"), (1, "a weight")]


def test_a_run_that_diverged_is_a_result_and_can_be_tried_again(tiny, tmp_path, monkeypatch, capsys):
    config = tiny(method="baseline", teacher="")
    with monkeypatch.context() as broken:
        broken.setattr("sastc.train.step.Step.is_finite", lambda self: False)
        with pytest.raises(DivergedError, match="a weight is not finite in epoch 1"):
            sastc.run(config, results=tmp_path, progress=False)
    (run,) = sastc.list_runs(tmp_path)
    assert run.diverged["what"] == "a weight"
    assert run.ended
    assert not run.complete
    with monkeypatch.context() as idle:
        idle.setattr(Trainer, "epoch", None)
        with pytest.raises(
            DivergedError,
            match=r"a weight is not finite in epoch 1: try .* only python -m sastc .* --force runs it again",
        ):
            sastc.run(config, results=tmp_path, progress=False)
    assert main(["--results", str(tmp_path), "list"]) == 0
    assert main(["--results", str(tmp_path), "show", run.name]) == 0
    said = capsys.readouterr().out
    assert f"  diverged  {run.path}" in said
    assert "  diverged  a weight is not finite in epoch 1\n" in said
    assert sastc.run(config, results=tmp_path, progress=False, force=True).complete
    assert run.diverged is None
    assert not verify(tmp_path, progress=False), "the finished run lists all of its files"


def test_weight_that_is_not_finite_stops_though_neurons_hide_it(tiny, tmp_path, monkeypatch):
    def spoilt(self, *arguments, epoch=Trainer.epoch):
        row = epoch(self, *arguments)
        with torch.no_grad():
            next(self.step.model.parameters()).view(-1)[0] = torch.nan
        return row

    monkeypatch.setattr(Trainer, "epoch", spoilt)
    with pytest.raises(RunError, match="a weight is not finite in epoch 1"):
        sastc.run(tiny(method="baseline", teacher=""), results=tmp_path, progress=False)


@pytest.fixture
def begun(tiny, tmp_path, monkeypatch):
    """A config whose run has stopped after its first epoch, with its results folder."""

    def stop(self, number, *arguments, epoch=Trainer.epoch):
        if number and self.config.method == "kd":
            raise KeyboardInterrupt
        return epoch(self, number, *arguments)

    config = tiny(method="kd")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            sastc.run(config, results=tmp_path, progress=False)
    return config, tmp_path


def test_resumed_run_tells_where_it_was_begun(begun):
    config, results = begun
    first = Run(run_path(config, results)).provenance
    done = sastc.run(config, results=results, progress=False)
    (part,) = done.provenance["begun"]
    assert part == {name: first[name] for name in ("commit", "dirty", "started", "resumed_at_epoch")}
    assert done.provenance["resumed_at_epoch"] == 1


def test_resumed_run_keeps_the_threads_of_its_beginning(begun):
    config, results = begun
    torch.set_num_threads(2)
    try:
        done = sastc.run(config, results=results, progress=False)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert done.provenance["threads"] == 1
    assert "begun with 1 threads: goes on with as many, not with 2" in (done.path / "log.txt").read_text()


def test_a_run_does_not_go_on_with_other_images(begun, monkeypatch):
    config, results = begun
    dataset = sastc.build.dataset(config, "data")
    other = dataclasses.replace(dataset, provenance={**dataset.provenance, "train_rows_sha256": "0"})
    monkeypatch.setattr(sastc.build, "dataset", lambda *_: other)
    with pytest.raises(RunError, match=r"begun with data Digits.*other train_rows_sha256.*force"):
        sastc.run(config, results=results, progress=False)
    teacher = config.teacher_config()
    with pytest.raises(RunError, match=rf"{teacher.name} was made from other data .*method=teacher.* --force"):
        sastc.run(config, results=results, progress=False, force=True)
    for wanted in (teacher, config):
        assert sastc.run(wanted, results=results, progress=False, force=True).complete


def test_a_run_does_not_go_on_with_another_teacher(begun):
    config, results = begun
    teacher = Run(run_path(config.teacher_config(), results))
    weights = teacher.path / "weights.pt"
    torch.save({name: value + 1 for name, value in torch.load(weights).items()}, weights)
    rewrite(teacher, weights_sha256=records.sha256(weights))
    with pytest.raises(RunError, match=r"begun with teacher digits-.*other weights_sha256"):
        sastc.run(config, results=results, progress=False)


@pytest.mark.slow
def test_teacher_trained_again_is_compared_with_the_recorded_one(tiny, tmp_path):
    config = tiny(method="kd", epochs=1)
    teacher = sastc.run(config.teacher_config(), results=tmp_path, progress=False)
    (teacher.path / "weights.pt").unlink()  # as in a clone: weights are not in git
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sastc.run(config, results=tmp_path, progress=False)
    (teacher.path / "weights.pt").unlink()
    rewrite(teacher, weights_sha256=64 * "0")
    with pytest.warns(UserWarning, match=f"{teacher.name} is trained again.* instead of 0000000000"):
        assert sastc.run(config.replace(seed=1), results=tmp_path, progress=False).complete


@pytest.fixture
def content():
    """Content of the files of a folder, the lock's left out."""
    return lambda folder: {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.name != ".lock"}


@pytest.mark.slow
def test_recorded_run_stays_whole_until_the_new_one_is(tiny, tmp_path, content, monkeypatch):
    config = tiny(method="baseline", teacher="", epochs=8)
    done = sastc.run(config, results=tmp_path, progress=False)
    before, again = content(done.path), done.path / records.AGAIN
    with monkeypatch.context() as patch:
        patch.setattr(sastc.build, "dataset", lambda *_: exec('raise OSError("not there")'))
        with pytest.raises(OSError, match="not there"):
            sastc.run(config, results=tmp_path, progress=False, force=True)
    assert content(done.path) == before
    assert not again.exists()
    process = programs.Program("-m", "sastc", "--results", tmp_path, "train", *config.arguments, "--force")
    wait_for_epochs(again, 2, process)
    process.kill()
    process.wait()
    assert content(done.path) == before
    assert list(again.glob("checkpoint*"))
    assert [run.path for run in sastc.list_runs(tmp_path)] == [done.path]
    assert sastc.run(config, results=tmp_path, progress=False).path == done.path, "recorded: needs no work"
    new = sastc.run(config, results=tmp_path, progress=False, force=True)
    assert not again.exists()
    assert new.provenance["resumed_at_epoch"] is None
    assert (new.path / "log.txt").read_bytes() != before["log.txt"]
    assert new.metrics["weights_sha256"] == json.loads(before["metrics.json"])["weights_sha256"]


@pytest.mark.parametrize("steps", range(6))
def test_killed_while_the_new_run_takes_its_place(tmp_path, monkeypatch, steps):
    """No mixture of old and new is complete, wherever it stops, and the next call goes on."""
    names = ("history.csv", "metrics.json", "weights.pt")
    for folder, text in ((tmp_path / records.AGAIN, "new"), (tmp_path, "old")):
        for name in names:
            records.write(folder / name, text)
    left = iter(range(steps))

    def killed(original):
        def call(*arguments, **options):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return original(*arguments, **options)

        return call

    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(os, "replace", killed(os.replace))
        patch.setattr(type(tmp_path), "unlink", killed(type(tmp_path).unlink))
        patch.setattr(type(tmp_path), "rmdir", killed(type(tmp_path).rmdir))
        records.take_over(tmp_path)
    if Run(tmp_path).complete:
        assert len({(tmp_path / name).read_text() for name in names}) == 1
    records.take_over(tmp_path)
    assert [(tmp_path / name).read_text() for name in names] == ["new"] * 3
    records.take_over(tmp_path)


def test_teacher_made_again_keeps_its_record_and_goes_on(tiny, tmp_path, content, monkeypatch):
    """Killed or interrupted while the teacher of a clone is trained, which has no weights."""
    config = tiny(method="kd", epochs=1, teacher_epochs=3)
    teacher = sastc.run(config.teacher_config(), results=tmp_path, progress=False)
    (teacher.path / "weights.pt").unlink()
    before = content(teacher.path)

    def stop(self, number, *arguments, epoch=Trainer.epoch):
        if number == 2:
            raise KeyboardInterrupt
        return epoch(self, number, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            sastc.run(config, results=tmp_path, progress=False)
    assert content(teacher.path) == before
    sastc.run(config, results=tmp_path, progress=False)
    assert teacher.provenance["resumed_at_epoch"] == 2
    assert teacher.metrics["weights_sha256"] == json.loads(before["metrics.json"])["weights_sha256"]
    assert teacher.metrics["weights_sha256"] == records.sha256(teacher.path / "weights.pt")


def test_show_promises_to_go_on_where_there_is_a_checkpoint(begun, capsys):
    config, results = begun
    run = Run(run_path(config, results))
    assert main(["--results", str(results), "show", run.name]) == 0
    assert "unfinished: the same command goes on from the last finished epoch" in capsys.readouterr().out
    records.remove_checkpoints(run.path)
    assert main(["--results", str(results), "show", run.name]) == 0
    assert "unfinished: the same command starts it from the first epoch" in capsys.readouterr().out


def test_confusion_counts_the_same_predictions_as_the_accuracy(tiny, tmp_path, monkeypatch):
    """In bf16 the mean of the steps' logits may round otherwise than the logits of the mean."""
    monkeypatch.setattr(sastc.models.Network, "logits_by_step", lambda self, x: torch.zeros(2, len(x), 10))
    done = sastc.run(tiny(method="baseline", teacher=""), results=tmp_path, progress=False)
    assert 100 * done.measures["confusion"].trace() / 360 == pytest.approx(done.metrics["accuracy"])


def test_indices_of_subset_and_noise_are_recorded(run, tiny):
    done = run(tiny(method="baseline", teacher="", label_noise=0.25, train_fraction=0.5, epochs=1, batch_size=8))
    with np.load(done.path / "indices.npz", allow_pickle=False) as indices:
        assert len(indices["train_rows"]) == len(set(indices["train_rows"])) == 40
        assert len(indices["noisy_rows"]) == 10
        assert set(indices["noisy_rows"]) <= set(indices["train_rows"])
        labels = sastc.load_dataset("digits").train.labels.numpy()
        assert (labels[indices["noisy_rows"]] != indices["noisy_labels"]).all()


@pytest.mark.slow
def test_partial_batches_are_kept_or_dropped(run, tiny):
    for partial, seen in (("drop", 64), ("keep", 70)):
        config = tiny(train_subset=70, partial_batch=partial, batch_size=16, epochs=1)
        done = run(config)
        accuracy = done.history.train_accuracy[0] / 100 * seen
        assert accuracy == pytest.approx(round(accuracy), abs=1e-3), "a share of the images seen"
        assert done.complete


def test_fisher_information_is_recorded_on_the_images_as_stored(run, tiny):
    from sastc.fisher import fisher_trace

    done = run(tiny(method="kd", fisher_samples=20))
    fisher = done.measures["fisher"]
    assert fisher.shape == (2, 2)
    plain = run(tiny(method="kd"))
    assert done.metrics["weights_sha256"] == plain.metrics["weights_sha256"], "measuring changes nothing"
    part = sastc.load_dataset("digits", image_size=8, train_subset=80)
    x = normalise(part.train.images[:20], part.mean, part.std)
    trace = fisher_trace(sastc.load_model(done), x, part.train.labels[:20])
    np.testing.assert_allclose(fisher[-1], trace, rtol=1e-4)


def test_validation_images_take_the_place_of_the_test_split(run, tiny):
    done = run(tiny(method="baseline", teacher="", validation=0.25))
    assert done.provenance["data"]["test_images"] == done.measures["confusion"].sum() == 359


def test_early_stopping(run, tiny):
    config = tiny(method="baseline", teacher="", epochs=60, learning_rate=1e-12, early_stop=3)
    history = run(config).history
    assert len(history) - 1 - int(history.test_accuracy.argmax()) == 3
    assert len(history) < 60


@pytest.mark.slow
def test_switches_change_the_result(run, tiny):
    """Every calibration, neuron and loss switch reaches the training: after two steps the weights are different."""
    base = run(tiny(epochs=1)).metrics["weights_sha256"]
    for change in (
        dict(qk_norm=False), dict(score_scale=3.0), dict(mlp_sharing="shared"), dict(sim_norm="row_l2"),
        dict(sim_order="sorted"), dict(detach_sim=True), dict(attention="uniform"), dict(target_norm="layer"),
        dict(attention="untrained"), dict(attention="random"), dict(attention="cka"), dict(validation=0.2),
        dict(memory_format="channels_last"), dict(resize_student="avg"), dict(projector_bn="folded"),
        dict(small_student="upsample_student"), dict(reduction="sum"), dict(beta=9.0), dict(temperature=2.0),
        dict(gamma=0.6), dict(decay=0.9), dict(threshold=0.8), dict(surrogate="atan"), dict(reset="soft"),
        dict(detach_reset=True), dict(output="leaky_membrane"), dict(tdbn_alpha=0.5), dict(taps="stem_and_stages"),
        dict(student_tap="membrane"), dict(mlp_dim=50), dict(label_noise=0.5),
        dict(vgg_downsample="pool"), dict(vgg_head="single"), dict(precision="bf16"), dict(momentum=0.5),
    ):  # fmt: skip
        assert run(tiny(epochs=1, **change)).metrics["weights_sha256"] != base, change
    both = [run(tiny(reshuffle=again)).metrics["weights_sha256"] for again in (True, False)]
    assert both[0] != both[1], "the order of the second epoch"


@pytest.mark.slow
def test_terminal_interface(run, tiny, results):
    def cli(*arguments):
        return programs.run("-m", "sastc", "--results", results, *arguments)

    kd, base = run(tiny(method="kd")), run(tiny(method="baseline"))
    train = cli("train", *TINY_SETTINGS, "method=kd")
    assert train.returncode == 0
    assert f"last {kd.metrics['last_accuracy']:.2f} %" in train.stdout
    assert kd.name in cli("list", "kd-T2").stdout
    assert base.name not in cli("list", "kd-T2").stdout
    assert kd.config.command in cli("show", kd.name).stdout
    compared = cli("compare", kd.name, base.name).stdout
    assert "method" in compared
    assert "baseline" in compared
    assert "learning_rate" not in compared
    assert "one of teacher, baseline, kd, feature_kd, sastc" in cli("explain", "method").stdout
    for wrong in (["train", "epcohs=3"], ["show", "nobody"], ["explain", "epcohs"], ["train", "epochs=0"]):
        result = cli(*wrong)
        assert result.returncode == 2
        assert "Traceback" not in result.stderr
        assert result.stderr.strip()


def test_damaged_record_is_named(run, tiny, tmp_path):
    folder = tmp_path / "quick" / "x"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{")
    with pytest.raises(RunError, match=r"config.json is damaged"):
        _ = Run(folder).config
    (folder / "config.json").write_text(json.dumps(tiny().to_dict()))
    with pytest.raises(RunError, match=r"holds no metrics.json"):
        _ = Run(folder).metrics
    for name, content, words in (
        ("config", "{}", f"is damaged: delete {folder}, and make the run again"),
        ("config", '{"epochs": 1, "colour": 3}', "is not of this version of sastc: unknown field 'colour'"),
        ("config", '{"epochs": -1}', "is not of this version of sastc: epochs=-1"),
        ("metrics", "[]", "is damaged"),
        ("metrics", '{"accuracy": 9', "is damaged"),
        ("provenance", "[1]", "is damaged"),
        ("history", "", "is damaged"),
        ("measures", "", "is damaged"),
        ("measures", "PK", "is damaged"),
    ):
        path = folder / f"{name}.{dict(history='csv', measures='npz').get(name, 'json')}"
        path.write_text(content)
        with pytest.raises(RunError, match=f"{path} {words}"):
            getattr(Run(folder), name)


def test_list_goes_on_after_a_damaged_run(tiny, tmp_path, capsys):
    for name, metrics in (("a", '{"accuracy": 9'), ("b", "{}"), ("c", "[]"), ("d", '{"epochs": 1}'), ("e", None)):
        records.write_json(tmp_path / name / "config.json", tiny().to_dict())
        if metrics:
            records.write(tmp_path / name / "metrics.json", metrics)
    records.write_json(tmp_path / "f" / "config.json", tiny().to_dict())
    records.write_json(tmp_path / "f" / "metrics.json", {"accuracy": 50.0})
    assert main(["--results", str(tmp_path), "list"]) == 0
    said = [line.split("  ")[-2].strip() for line in capsys.readouterr().out.splitlines()]
    assert said == ["damaged"] * 4 + ["unfinished", "50.00 %"]


@pytest.mark.parametrize("device", ["foo", "cuda:99", "mps", "meta"])
def test_device_that_is_not_there(tiny, tmp_path, device):
    with pytest.raises(
        RunError, match=rf"^device='{device}': must be auto, cpu, cuda or cuda:N; this machine has \d+ GPU"
    ):
        sastc.run(tiny(), results=tmp_path, progress=False, device=device)
    assert not list(tmp_path.iterdir())


def test_devices_that_are_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for available, auto in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        assert chosen_device("auto") == torch.device(auto)
        assert chosen_device("cpu") == chosen_device(torch.device("cpu")) == torch.device("cpu")
    assert [str(chosen_device(name)) for name in ("cuda", "cuda:0", "cuda:1")] == ["cuda", "cuda:0", "cuda:1"]
    with pytest.raises(RunError, match=r"'cuda:2': .* has 2 GPUs"):
        chosen_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RunError, match=r"'cuda': .* has 0 GPUs"):
        chosen_device("cuda")


def test_images_are_named_by_a_path(run, tiny):
    dataset, done = sastc.load_dataset("digits", image_size=8), run(tiny(method="kd"))
    for use in (lambda: run(tiny(), data=dataset), lambda: sastc.load_model(done, data=dataset)):
        with pytest.raises(RunError, match="data=<Dataset>: must be a path; for images of your own use dataset=imagef"):
            use()


def test_refused_run_leaves_no_folder(tiny, tmp_path):
    config = tiny(dataset="cifar10", train_subset=0)
    folder = run_path(config, tmp_path)
    with pytest.raises(OSError, match="no data found"):
        sastc.run(config, results=tmp_path, data=tmp_path / "nothing", progress=False)
    assert not folder.exists()
    (folder / "kept").mkdir(parents=True)
    with pytest.raises(OSError, match="no data found"):
        sastc.run(config, results=tmp_path, data=tmp_path / "nothing", progress=False)
    assert (folder / "kept").exists()


def test_folder_of_a_refused_run_belongs_to_who_holds_its_lock(tmp_path):
    """A process that opened the lock before it went does not hold it beside one that makes it anew."""
    folder = tmp_path / "run"
    opened, original = [], os.unlink

    def unlink(path, **options):
        if str(path).endswith(".lock"):
            opened.append(os.open(path, os.O_RDWR))
        original(path, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "unlink", unlink)
        with pytest.raises(KeyError), locked(folder):
            raise KeyError
    (late,) = opened
    assert os.fstat(late).st_nlink == 0
    os.close(late)
    with locked(folder), pytest.raises(RunError, match="being written by another process"), locked(folder):
        pass


def test_two_processes_may_try_a_folder_at_the_same_moment(tmp_path, monkeypatch):
    write = records.write

    def removed_by_the_other(path, content):
        write(path, content)
        path.unlink()

    monkeypatch.setattr(records, "write", removed_by_the_other)
    with locked(tmp_path / "run"):
        assert (tmp_path / "run" / ".lock").exists()


def test_settings_may_stand_around_options(tmp_path, capsys):
    refused = ["--results", str(tmp_path), "train", "dataset=cifar10", "--data", str(tmp_path / "nothing"), "seed=1"]
    assert main(refused) == 2
    said = capsys.readouterr().err
    assert "cifar10: no data found" in said
    assert "--data" in said
    for wrong in (["train", "seed=1", "--speed=3"], ["train", "seed=1", "--force", "-s=1"], ["list", "--data=x"]):
        with pytest.raises(SystemExit):
            main(wrong)
        assert "unrecognized arguments" in capsys.readouterr().err
    assert main([*refused, "timesteps"]) == 2
    assert "'timesteps': must be key=value" in capsys.readouterr().err
    assert main([*refused, "seed=2"]) == 2
    assert "'seed=2': seed is given twice" in capsys.readouterr().err


@pytest.mark.slow
def test_teacher_whose_weights_are_gone_is_trained_again(tiny, tmp_path):
    """Weights are not kept in git: a student of a cloned record finds its teacher's numbers, not its weights."""
    first = sastc.run(tiny(method="kd"), results=tmp_path, progress=False)
    teacher = find_run(first.provenance["teacher"]["run"], tmp_path)
    (teacher.path / "weights.pt").unlink()
    with pytest.raises(RunError, match=r"no weights.pt: weights are not kept in git; make them with python -m sastc"):
        sastc.load_model(teacher)
    assert sastc.run(tiny(method="kd"), results=tmp_path, progress=False).complete, "recorded: needs no teacher"
    second = sastc.run(tiny(method="kd", seed=1), results=tmp_path, progress=False)
    assert second.provenance["teacher"] == first.provenance["teacher"], "the same weights, bit for bit"


def test_teacher_run_names_a_recorded_teacher(tiny, tmp_path):
    teacher = sastc.run(tiny(method="teacher", seed=7, epochs=1), results=tmp_path, progress=False)
    student = sastc.run(tiny(method="kd", teacher_run=teacher.name), results=tmp_path, progress=False)
    assert student.provenance["teacher"]["run"] == teacher.name
    with pytest.raises(RunError, match="must be a finished teacher run"):
        sastc.run(tiny(method="kd", teacher_run=student.name), results=tmp_path, progress=False)
    other = tiny(method="kd", teacher_run=teacher.name, teacher="vgg11", width=1 / 8)
    words = rf"^teacher_run='{teacher.name}': was trained with teacher='resnet19', width=0.0625; teacher='vgg11', width"
    with pytest.raises(RunError, match=words):
        sastc.run(other, results=tmp_path, progress=False)
    # what a resnet19 has not may differ
    assert sastc.run(tiny(method="kd", teacher_run=teacher.name, vgg_head="single"), results=tmp_path, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage", [lambda content: b"", lambda content: content[:-9], lambda content: content[:-9] + bytes(9)]
)
def test_weights_that_are_not_the_recorded_ones_are_not_used(tiny, tmp_path, damage):
    teacher = sastc.run(tiny(method="kd").teacher_config(), results=tmp_path, progress=False)
    weights = teacher.path / "weights.pt"
    weights.write_bytes(damage(weights.read_bytes()))
    words = rf"{weights} is damaged or of another run: .*delete it, and make it again with python -m sastc .*--force"
    for use in (
        lambda: sastc.load_model(teacher),
        lambda: sastc.run(tiny(method="kd"), results=tmp_path, progress=False),
        lambda: sastc.run(tiny(method="kd", teacher_run=teacher.name), results=tmp_path, progress=False),
    ):
        with pytest.raises(RunError, match=words):
            use()
    assert [run.path for run in sastc.list_runs(tmp_path)] == [teacher.path], "no student has started"
    weights.unlink()
    assert sastc.run(tiny(method="kd"), results=tmp_path, progress=False).complete


@pytest.mark.parametrize("method", ["feature_kd", "sastc"])
def test_gradients_of_the_terms_add_up_to_that_of_the_loss(tiny, tmp_path, method):
    config = tiny(method=method, beta=3.0)
    trainer = Trainer(config, tmp_path, sastc.build.dataset(config), CPU, False)
    training = trainer.step
    training.begin(0)
    x, y, _ = next(trainer.train_batches(0))
    parts, _ = training.losses(x, y)
    found = {name: value.item() for name, value in training.compare(parts).items()}
    assert all(p.grad is None for p in training.model.parameters())
    parts["loss"].backward()
    student = sum(p.grad.double().square().sum().item() for p in training.model.parameters())
    helpers = (p.grad for p in training.calibration.parameters() if p.grad is not None)
    kd, feature = found["gradient_kd"], found["gradient_feature"]
    cross = 2 * found["gradient_cosine"] * kd * feature
    assert student == pytest.approx(kd**2 + feature**2 + cross, rel=1e-4)
    assert min(kd, feature) > 0
    assert found["gradient_projectors"] == pytest.approx(sum(g.square().sum().item() for g in helpers) ** 0.5, rel=1e-4)


@pytest.mark.slow
def test_compiled_steps_are_the_same_up_to_rounding(tiny, tmp_path):
    config = tiny(method="kd", teacher="vgg11", epochs=1, stm_batches=1)
    plain = sastc.run(config, results=tmp_path / "a", progress=False)
    compiled = sastc.run(config, results=tmp_path / "b", progress=False, compiler="aot_eager")
    assert (plain.provenance["compiler"], compiled.provenance["compiler"]) == (None, "aot_eager")
    found, expected = (run.history.iloc[-1] for run in (compiled, plain))
    for name in ("train_loss", "kd_loss", "test_loss"):
        assert found[name] == pytest.approx(expected[name], rel=1e-3)


def test_what_is_recomputed_is_not_compiled(tiny, tmp_path):
    with pytest.raises(RunError, match=r"^compiler='aot_eager': must be left out with checkpoint=blocks$"):
        sastc.run(tiny(checkpoint="blocks"), results=tmp_path, progress=False, compiler="aot_eager")
    assert not list(tmp_path.rglob("weights.pt"))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_convolutions_are_in_tf32_where_that_is_asked_for(tiny, tmp_path, monkeypatch, precision):
    during, epoch = set(), Trainer.epoch

    def watched(self, *arguments):
        during.add(torch.backends.cudnn.allow_tf32)
        return epoch(self, *arguments)

    monkeypatch.setattr(Trainer, "epoch", watched)
    for before in (True, False):
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", before)
        sastc.run(tiny(precision=precision), results=tmp_path / str(before), progress=False)
        assert torch.backends.cudnn.allow_tf32 == before
    assert during == {precision == "tf32"}


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_terminal_keeps_freed_memory():
    code = """
import sys
import numpy as np
from sastc.__main__ import _keep_memory
if sys.argv[1] == "keep":
    _keep_memory()
def resident():
    return int(open("/proc/self/statm").read().split()[1])
before = resident()
array = np.ones(2**25)  # 256 MiB, touched
del array
print(resident() - before > 2**15)  # half of it, in pages of 4 KiB
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    said = [
        subprocess.run([sys.executable, "-c", code, how], env=environment, capture_output=True, text=True).stdout
        for how in ("leave", "keep")
    ]
    assert said == ["False\n", "True\n"]


def test_hints_name_the_run_where_it_is(tiny, tmp_path, begun):
    config, folder = begun
    unfinished = Run(run_path(config, folder))
    with pytest.raises(RunError, match=r"is not finished: python -m sastc --results .*(?<!--force) goes on with it"):
        sastc.load_model(unfinished)
    student = sastc.run(tiny(method="kd"), results=tmp_path / "own", progress=False)
    teacher = find_run(student.provenance["teacher"]["run"], tmp_path / "own")
    again = f"python -m sastc --results {tmp_path / 'own'} train "
    (teacher.path / "weights.pt").write_bytes(b"")
    with pytest.raises(RunError, match=f"delete it, and make it again with {again}.*method=teacher.* --force"):
        sastc.load_model(student, "teacher")
    (teacher.path / "metrics.json").write_text("{")
    with pytest.raises(RunError, match=f"metrics.json is damaged: make the run again with {again}.*method=teacher"):
        sastc.run(tiny(method="kd", seed=1), results=tmp_path / "own", progress=False)
    (teacher.path / "config.json").write_text("{")
    with pytest.raises(RunError, match=f"config.json is damaged: delete {teacher.path}, and make the run again"):
        _ = teacher.config


def test_the_teacher_of_a_students_run(run, tiny):
    student = run(tiny(method="kd"))
    teacher = find_run(student.provenance["teacher"]["run"], student.path.parents[1])
    loaded, expected = sastc.load_model(student, "teacher").state_dict(), sastc.load_model(teacher).state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in expected.items())
    for of, role, allowed in ((student, "Student", "student, teacher"), (teacher, "student", "teacher")):
        with pytest.raises(ValueError, match=f"role='{role}': must be one of {allowed} for this run"):
            sastc.load_model(of, role)
    assert Run(str(student.path)).complete


def test_compare_keeps_the_epochs_that_were_asked_for(tiny, run, results, capsys):
    names = [run(tiny(method="kd", epochs=epochs)).name for epochs in (1, 2)]
    assert main(["--results", str(results), "compare", *names]) == 0
    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert lines["epochs"] == lines["epochs_done"] == ["1", "2"]


def test_a_pipe_that_closes_is_no_mistake():
    command = f"{shlex.quote(sys.executable)} -m sastc explain | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.startswith("dataset:")
    assert not done.stderr


def test_a_teacher_of_few_images_names_the_way_out(tiny, tmp_path):
    config = tiny(method="kd", train_subset=0, train_fraction=0.02, batch_size=2)
    with pytest.raises(RunError, match=r"-teacher-.*: the training split has 30 images; .*subset_teacher=full"):
        sastc.run(config, results=tmp_path, progress=False)


def test_errors_reach_the_other_processes_as_they_are():
    for error in (
        DivergedError("a run", "the loss", 3, "python -m sastc train"),
        NoEffectError("gamma", 0.5, ["mine.py:SNN"]),
    ):
        sent = pickle.loads(pickle.dumps(error))
        assert (type(sent), str(sent)) == (type(error), str(error))


def test_settings_of_other_methods_do_nothing(tiny, tmp_path):
    config = tiny(method="kd", epochs=1, stm_weighted=True, attention_steps=1)
    assert config.identity == tiny(method="kd", epochs=1).identity
    run = sastc.run(config, results=tmp_path, progress=False)
    assert np.isfinite(run.metrics["stm"])
    assert "step_number" not in run.measures


def test_small_batches_keep_as_many_images_one_by_one(tiny, tmp_path):
    run = sastc.run(tiny(method="sastc", epochs=1, batch_size=8, probe_batches=4), results=tmp_path, progress=False)
    names = [name for name in run.measures if name.startswith(("instance_", "sam_"))]
    assert {run.measures[name].shape[0] for name in names} == {16}
    assert run.measures["attention_instance"].shape[1] == 16
    whole = sastc.run(tiny(method="sastc", epochs=1, batch_size=32), results=tmp_path, progress=False)
    assert (whole.measures["instance_index"] == run.measures["instance_index"]).all()


def test_similarity_is_of_whole_batches(tiny, tmp_path, monkeypatch):
    """A last batch of three images would count as much as the others, with the biased estimate at that."""
    settings = dict(method="sastc", epochs=1, batch_size=8, probe_batches=2)
    whole = sastc.run(tiny(**settings), results=tmp_path, progress=False).measures
    monkeypatch.setattr("sastc.train.trainer.Probe", lambda data, size, *rest: Probe(data, size + 3, *rest))
    ragged = sastc.run(tiny(**settings), results=tmp_path / "other", progress=False).measures
    np.testing.assert_array_equal(whole["cka"], ragged["cka"])
    assert (whole["attention"] != ragged["attention"]).any(), "attention is of all images"


def test_the_way_out_of_too_few_images_has_no_micro_batches():
    config = sastc.RunConfig(method="teacher", batch_size=1500, accumulate=2)
    assert "first train" in (told := _way_out(config, 1437))
    assert "batch_size=1437" in told
    assert "accumulate" not in told


def test_only_a_training_goes_on_after_an_interruption(results, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("sastc.__main__._list", interrupted)
    assert main(["--results", str(results), "list"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_potentials_of_networks_without_membranes_name_their_setting(tiny, tmp_path):
    with pytest.raises(RunError, match="student_tap='membrane': wrn28_4 has no neuron with a membrane"):
        sastc.run(tiny(student="wrn28_4", method="kd", student_tap="membrane"), results=tmp_path, progress=False)


def test_versions_of_packages_that_are_not_installed_are_unknown(monkeypatch):
    def version(name):
        if name == "sastc":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(records, "version", version)
    found = records.provenance("", torch.device("cpu"), 1)["versions"]
    assert (found["sastc"], found["torch"]) == (None, "1")
