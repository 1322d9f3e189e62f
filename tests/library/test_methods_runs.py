"""Every distillation method of the field trains: a tiny run, in half precision, in micro-batches, and resumed."""

import numpy as np
import pytest
import torch

import sastc
from sastc.config import METHODS, STUDENT, ConfigError, RunConfig
from sastc.data import load_dataset
from sastc.methods import REGISTRY
from sastc.records import run_path
from sastc.train import Step, networks

OTHERS = [name for name in STUDENT if name not in METHODS]  # METHODS have tests of their own
SECONDS = ["train_seconds", "train_cpu_seconds", "inference_seconds", "test_seconds"]
# weights of the losses that each part is counted with; what is not named is counted once or only recorded
WEIGHTS = {
    "tet": {"step_cross_entropy": 1},
    "tet_kd": {"step_cross_entropy": 1, "teacher_divergence": 1},
    "kdsnn": {"kd_loss": 1, "feature_loss": 2e-3},
    "lasnn": {"kd_loss": 1, "feature_loss": 1000},
    "lasnn_mse": {"cross_entropy": 1, "feature_loss": 7e-5},
    "bkdsnn": {"cross_entropy": 1, "soft_loss": 1, "feature_loss": 2e-3},
    "twd": {"step_cross_entropy": 1, "teacher_divergence": 0.2, "self_divergence": 0.5},
    "tser": {"step_cross_entropy": 0.5, "teacher_divergence": 0.5, "entropy": -0.1},
    "ckdsnn": {"cross_entropy": 1, "activation_divergence": 1, "smoothed_divergence": 1},
    "seal_kd": {"step_cross_entropy": 1, "error_aware": 0.6, "temporal": 0.15},
    "hta_kl": {"cross_entropy": 1, "head_tail_divergence": 1},
    "fitnet": {"kd_loss": 1, "feature_loss": 100},
    "sp": {"kd_loss": 1, "feature_loss": 3000},
    "semckd": {"kd_loss": 1, "feature_loss": 400},
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def images():
    return load_dataset("digits", image_size=8, train_subset=80)


def test_the_list_is_complete():
    assert sorted(WEIGHTS) == sorted(OTHERS)
    assert len({(REGISTRY[name].colour, REGISTRY[name].marker) for name in STUDENT}) == len(STUDENT)
    assert len({REGISTRY[name].label for name in STUDENT}) == len(STUDENT)


@pytest.mark.parametrize("method", OTHERS)
def test_every_method_trains_and_records(results, tiny, method):
    config = tiny(method=method, epochs=1)
    done = sastc.run(config, results=results, progress=False)
    history = done.history
    assert done.complete
    assert np.isfinite(history.to_numpy()).all()
    total = sum(weight * history[part] for part, weight in WEIGHTS[method].items())
    np.testing.assert_allclose(history.train_loss, total, rtol=1e-5)  # the published weights, from the records
    assert done.metrics["stm"] == pytest.approx(history.stm.mean())


def one_update(config, images):
    """A step after one update on random images, and the sums that it returned."""
    step = Step(config, *networks(config, images))
    step.begin(0)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(config.batch_size, images.in_channels, 8, 8, generator=generator)
    y = torch.randint(images.num_classes, (config.batch_size,), generator=generator)
    torch.manual_seed(0)  # what BKDSNN and CKDSNN draw
    return step, step.update(x, y)


@pytest.mark.parametrize("changes", [{}, {"precision": "bf16"}, {"accumulate": 2}, {"timesteps": 1}], ids=str)
@pytest.mark.parametrize("method", OTHERS)
def test_every_method_updates_all_that_it_trains(tiny, images, method, changes):
    config = tiny(method=method, weight_decay=0.0, **changes)
    before = [network.state_dict() for network in networks(config, images)]
    before = [{name: value.clone() for name, value in state.items()} for state in before]
    step, sums = one_update(config, images)
    assert all(value.isfinite() for value in sums.values())
    total = sum(weight * sums[part] for part, weight in WEIGHTS[method].items())
    torch.testing.assert_close(sums["loss"], total, rtol=1e-5, atol=1e-5)
    beside = dict(step.calibration.named_parameters())
    assert beside or method not in ("bkdsnn", "fitnet", "semckd")  # of the others some need no convolution here
    for name, weight in (*step.model.named_parameters(), *beside.items()):
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
    assert all(weight.grad.any() for name, weight in beside.items() if "query" not in name and "key" not in name)
    changed = [name for name, value in step.model.state_dict().items() if not value.equal(before[0][name])]
    assert "classifier.2.weight" in changed
    assert any(name.startswith("stages.stem") for name in changed)
    for name, value in step.teacher.state_dict().items():
        assert value.equal(before[1][name])


@pytest.mark.parametrize("method", OTHERS)
def test_half_precision_is_near(tiny, images, method):
    _, exact = one_update(tiny(method=method), images)
    _, half = one_update(tiny(method=method, precision="bf16"), images)
    assert half["loss"].dtype == torch.float32
    assert half["loss"].item() == pytest.approx(exact["loss"].item(), rel=0.2)


@pytest.mark.parametrize("teacher", ["wrn16_2", "vgg13"])
@pytest.mark.parametrize("method", OTHERS)
def test_teachers_of_other_shapes(tiny, images, method, teacher):
    """A pre-activation network, whose last map lies behind a norm and a ReLU; and one with more stages."""
    config = tiny(method=method, student="resnet18", teacher=teacher, wrn16_2_variant="wide_resnet")
    _, sums = one_update(config, images)
    assert all(value.isfinite() for value in sums.values())


@pytest.mark.parametrize("method", ["bkdsnn", "ckdsnn"])
def test_stopped_run_resumes_to_the_same_numbers(results, tiny, tmp_path, monkeypatch, method):
    """Those that draw in every step, stopped in the middle of the second of three epochs."""
    config = tiny(method=method, epochs=3, seed=3)
    whole = sastc.run(config, results=results, progress=False)
    losses, calls = REGISTRY[method].losses, []

    def stopped(self, batch):
        calls.append(batch.epoch)
        if calls.count(1) == 2:
            raise KeyboardInterrupt
        return losses(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(REGISTRY[method], "losses", stopped)
        with pytest.raises(KeyboardInterrupt):
            sastc.run(config, results=tmp_path, progress=False)
    assert not (run_path(config, tmp_path) / "metrics.json").exists()
    torch.rand(7)  # another place in the stream of random numbers
    resumed = sastc.run(config, results=tmp_path, progress=False)
    assert resumed.provenance["resumed_at_epoch"] == 1
    assert resumed.metrics["weights_sha256"] == whole.metrics["weights_sha256"]
    assert resumed.history.drop(columns=SECONDS).equals(whole.history.drop(columns=SECONDS))


def test_options_of_the_methods():
    config = RunConfig.from_dict(dict(method="twd", self_weight=0.25, target="mean"))
    assert config.options == {"teacher_weight": 0.2, "self_weight": 0.25, "tau": 3.0, "target": "mean"}
    assert config.name != RunConfig(method="twd").name
    with pytest.raises(ConfigError, match="target='all': must be one of correct, mean"):
        RunConfig.from_dict(dict(method="twd", target="all"))
    with pytest.raises(ConfigError, match="blank=2: must be a number >= 0 and <= 1"):
        RunConfig.from_dict(dict(method="bkdsnn", blank=2))
    with pytest.raises(ConfigError, match="mlp_dim"):
        RunConfig(method="semckd", mlp_dim=8, batch_size=16)


def test_layers_of_a_hint_that_are_not_there(tiny, images):
    config = RunConfig.from_dict(dict(tiny(method="fitnet").to_dict(), hint="2-9"))
    with pytest.raises(ConfigError, match="hint='2-9'"):
        Step(config, *networks(config, images))
