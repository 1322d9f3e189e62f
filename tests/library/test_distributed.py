"""Two processes against one with the same batches: the same curves; and what they compute in common, on its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from distributed_runs import CASES, LOCAL, RESUMED, config, in_float64, run, run_epochs
from torch.utils.checkpoint import checkpoint

from sastc import build, distributed, recompute
from sastc.config import ConfigError
from sastc.data import epoch_batches
from sastc.records import Run, RunError, run_path

pytestmark = pytest.mark.slow

SECONDS = ["train_seconds", "train_cpu_seconds", "inference_seconds", "test_seconds"]
ROOT = Path(__file__).parents[2]
HELPERS = ROOT / "tests" / "helpers"


def torchrun(*arguments, processes=2):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{HELPERS}"}
    options = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    process = subprocess.Popen([*command, *map(str, arguments)], env=environment, **options)
    try:
        output, errors = process.communicate(timeout=600)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Folders of runs in one process and in two."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    dtype = torch.get_default_dtype()
    try:
        with in_float64():
            for name in CASES:
                run(config(name), one)
            run(LOCAL, one)
            run(RESUMED, one)
            run_epochs(RESUMED, two, 1)
            ended = torchrun(HELPERS / "distributed_runs.py", two)
            run(RESUMED, two)
    finally:
        torch.set_default_dtype(dtype)
    return one, two, ended


def curves(config, results):
    run = Run(run_path(config, results))
    return run.history.drop(columns=SECONDS), run.measures


@pytest.mark.parametrize("name", CASES)
def test_two_processes_give_the_curve_of_one(results, name):
    (history, measures), (expected, wanted) = (curves(config(name), r) for r in results[1::-1])
    assert list(history) == list(expected)
    np.testing.assert_allclose(history, expected, rtol=1e-9)
    assert history.train_loss.nunique() == len(history), "something is learned"
    assert set(measures) == set(wanted)
    for measure in ("mismatch_mse", "mismatch_euclidean", "attention", "distance", "confusion", "accuracy_by_step"):
        if measure in wanted:
            np.testing.assert_allclose(measures[measure], wanted[measure], rtol=1e-6)


def test_number_of_processes_may_change_when_a_run_goes_on(results):
    one, two, _ = results
    np.testing.assert_allclose(curves(RESUMED, two)[0], curves(RESUMED, one)[0], rtol=1e-9)
    log = (run_path(RESUMED, two) / "log.txt").read_text()
    assert log.count("resumed at epoch") == 2
    assert "resumed at epoch 2 in 2 processes" in log
    assert "resumed at epoch 3: " in log


def test_choices_per_process_are_another_run(results):
    one, two, _ = results
    alone, shared = curves(LOCAL, one)[0], curves(LOCAL, two)[0]
    np.testing.assert_allclose(alone, curves(config("sastc"), one)[0], rtol=1e-12)
    assert not np.allclose(shared.train_loss, alone.train_loss, rtol=1e-4)
    assert np.isfinite(shared.to_numpy()).all()


def test_only_the_first_process_writes(results):
    _, two, _ = results
    for name in CASES:
        log = (run_path(config(name), two) / "log.txt").read_text()
        assert log.count("started") == log.count("finished") == 1
        assert Run(run_path(config(name), two)).provenance["processes"] == 2


def test_error_in_one_process_ends_all_with_its_message(results):
    ended = results[2]
    assert ended.returncode != 0
    assert "this process cannot go on" in ended.stderr
    assert not list((results[1] / "failing").rglob("metrics.json"))


def test_terminal(tmp_path, tiny):
    """The command of the documentation, in float32: a spike that rounding flips may change the fourth digit."""
    config = tiny(method="kd")
    ended = torchrun("-m", "sastc", "--results", tmp_path, "train", *config.arguments)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("accuracy  last") == 1
    assert ended.stderr.count("vgg11 kd:   0%") == 1, "one progress bar"
    history = curves(config, tmp_path)[0]
    expected = run(config, tmp_path / "one").history
    np.testing.assert_allclose(history.train_loss, expected.train_loss, rtol=1e-3)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_micro_batches_hold_the_same_images_for_any_number_of_processes(monkeypatch, processes):
    monkeypatch.setattr(distributed, "size", lambda: processes)
    x, y = torch.arange(20).view(20, 1, 1, 1), torch.arange(20)  # of 24, the last of an epoch
    shares = [distributed.micro_batches(x[r::processes], y[r::processes], 20, 8) for r in range(processes)]
    for k, images in enumerate((range(8), range(8, 16), range(16, 20))):
        parts = [share[k] for share in shares]
        for values in ([part.x.flatten() for part in parts], [part.y for part in parts]):
            assert sorted(torch.cat(values).tolist()) == list(images)
        assert sum(part.share for part in parts) == pytest.approx(len(images) / 20)
        assert {part.instances for part in parts} == {len(images)}
        assert [part.last for part in parts] == [k == 2] * processes


def test_batches_that_processes_cannot_share(monkeypatch):
    monkeypatch.setattr(distributed, "size", lambda: 4)
    assert distributed.micro_batch_size(100, 32, 2, keep_last=False) == 16
    with pytest.raises(RunError, match=r"batch_size=32, accumulate=16: .* = 2 must be a multiple of the 4 processes"):
        distributed.micro_batch_size(100, 32, 16, keep_last=False)
    with pytest.raises(RunError, match="partial_batch=keep: the last 2 of 66 images"):
        distributed.micro_batch_size(66, 32, 2, keep_last=True)


def test_accumulated_step_is_the_mean_of_its_parts(tiny, tmp_path):
    """Against a loop of its own: gradients of the halves, added and halved, then one step."""
    config = tiny(method="baseline", teacher="", accumulate=2, epochs=1)
    done = run(config, tmp_path)
    dataset = build.dataset(config, "data")
    torch.manual_seed(config.seed)
    model = build.build_model(config, dataset, "student").train()
    options = dict(momentum=config.momentum, weight_decay=config.weight_decay)
    optimizer = torch.optim.SGD(model.parameters(), config.learning_rate, **options)
    losses = []
    batches = epoch_batches(dataset, "train", 40, train=True, seed=0, epoch=0, drop_last=True, device="cpu")
    for x, y, _ in batches:
        optimizer.zero_grad()
        for half in (slice(0, 20), slice(20, 40)):
            loss = torch.nn.functional.cross_entropy(model(x[half]), y[half])
            losses.append(loss.item())
            (loss / 2).backward()
        optimizer.step()
    assert done.history.train_loss[0] == pytest.approx(np.mean(losses), rel=1e-4)
    trained = torch.load(done.path / "weights.pt", weights_only=True)
    for name, expected in model.state_dict().items():
        torch.testing.assert_close(trained[name], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("fields", [{}, dict(student="resnet18", teacher="wrn28_4", precision="bf16")])
def test_checkpointing_changes_nothing(tiny, tmp_path, fields):
    """Weights and running statistics, bit for bit: the second forward pass is not counted twice."""
    config = tiny(**fields)
    again = config.replace(checkpoint="blocks")
    assert again.identity == config.identity
    assert "checkpoint=blocks" in again.command
    calls = []
    with mock.patch.object(recompute, "checkpoint", lambda *a, **k: calls.append(a) or checkpoint(*a, **k)):
        runs = [run(c, tmp_path / str(k)) for k, c in enumerate((config, again))]
    assert calls
    assert runs[0].metrics["weights_sha256"] == runs[1].metrics["weights_sha256"]
    assert runs[0].history.drop(columns=SECONDS).equals(runs[1].history.drop(columns=SECONDS))


def test_fields_for_several_devices_leave_recorded_runs_their_names(tiny):
    default = tiny()
    explicit = tiny(accumulate=1, checkpoint="none", batch_norm="global", similarity="global")
    assert explicit.identity == default.identity
    for change in (dict(accumulate=2), dict(batch_norm="per_process"), dict(similarity="per_process")):
        assert tiny(**change).identity != default.identity
    for accumulate in (3, 40):
        with pytest.raises(ConfigError, match=f"accumulate={accumulate}: must divide batch_size=40"):
            tiny(accumulate=accumulate)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("device", "kind"), [("cpu", distributed.BatchNorm2d), ("cuda", torch.nn.SyncBatchNorm)])
@pytest.mark.parametrize("inside", [torch.nn.Sequential, lambda norm: norm], ids=["inside", "root"])
def test_synchronised_batch_norms_keep_what_they_are(affine, device, kind, inside):
    norm = torch.nn.BatchNorm2d(3, eps=1e-2, momentum=0.5, affine=affine).requires_grad_(False).eval()
    module = inside(norm)
    distributed.synchronise(module, torch.device(device))
    found = module if module is norm else module[0]
    assert type(found) is kind
    assert (found.eps, found.momentum, found.affine, found.training) == (1e-2, 0.5, affine, False)
    assert not any(parameter.requires_grad for parameter in found.parameters())


def test_batch_norms_of_other_kinds_are_left_alone():
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(3))
    distributed.synchronise(module, torch.device("cpu"))
    assert type(module[0]) is torch.nn.BatchNorm1d


@pytest.mark.parametrize("options", [{}, {"affine": False}, {"momentum": None}, {"eps": 0.1, "momentum": 0.5}])
def test_own_batch_norm_is_torchs(options, monkeypatch):
    norm, ours = (kind(3, **options).double() for kind in (torch.nn.BatchNorm2d, distributed.BatchNorm2d))
    x = torch.randn(4, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(distributed, "size", lambda: 2)  # one process that believes in another
    monkeypatch.setattr(distributed, "total", lambda tensor: tensor)
    for batch in (x, 3 * x + 1):
        torch.testing.assert_close(ours(batch), norm(batch))
    for name, buffer in norm.named_buffers():
        torch.testing.assert_close(dict(ours.named_buffers())[name], buffer)
