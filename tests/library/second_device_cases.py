"""Runs on a device that is not the CPU: a rehearsal for a GPU, on every machine. Called by test_second_device.py."""

import numpy as np
import pytest
import torch
from second_device import second_device

import sastc
from sastc import build, distributed
from sastc.config import METHODS, STUDENT
from sastc.train import Step, Trainer, networks

SECONDS = ("train_seconds", "train_cpu_seconds", "inference_seconds", "test_seconds")


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """Let runs ask for the device."""
    chosen = distributed.chosen_device
    monkeypatch.setattr(
        distributed, "chosen_device", lambda d: torch.device(d) if str(d).startswith("second") else chosen(d)
    )


def equal(one, other):
    """Whether two runs have the same numbers, bit for bit."""
    assert one.metrics["weights_sha256"] == other.metrics["weights_sha256"]
    histories = [run.history.drop(columns=list(SECONDS)) for run in (one, other)]
    assert histories[0].equals(histories[1])
    arrays = [dict(np.load(run.path / "measures.npz")) for run in (one, other)]
    assert arrays[0].keys() == arrays[1].keys()
    for name, array in arrays[0].items():
        np.testing.assert_array_equal(array, arrays[1][name])
    energy = [(run.path / "energy.csv").read_text() for run in (one, other)]
    assert energy[0] == energy[1]


def test_the_device_is_another_one():
    with second_device() as (device, copies):
        here, there = torch.ones(3), torch.zeros(3, device=device, requires_grad=True)
        with pytest.raises(RuntimeError, match=r"add.*tensors of the CPU and of the second device"):
            here + there
        moved = here.to(device)
        assert copies == {"from the host": 1, "to the host": 0}
        (moved * (there + 2)).square().sum().backward()
        assert there.grad.device == device
        assert copies["to the host"] == 0
        assert there.grad.tolist() == [4.0, 4.0, 4.0]
        assert copies["to the host"] == 1
        assert moved.sum().item() == 3
        assert copies["to the host"] == 2


@pytest.mark.parametrize(
    "changes",
    [
        dict(method="baseline"),
        dict(method="kd", label_noise=0.3),
        dict(method="feature_kd", validation=0.2),
        dict(student="resnet18", teacher="wrn28_4", fisher_samples=4, stm_weighted=True),
        dict(variant="released", teacher="pyramidnet20"),
        dict(accumulate=2, checkpoint="blocks", memory_format="channels_last"),
        dict(attention="cka", target_norm="layer", partial_batch="keep", train_subset=85),
        dict(sim_norm="row_l2", mlp_sharing="shared", projector_bn="folded", reduction="sum", reset="soft"),
        dict(dataset="digits_dvs", student="vggsnn", timesteps=3, teacher_input="per_step"),
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_a_run_has_the_numbers_of_the_cpu(tiny, tmp_path, changes):
    config = tiny(**changes)
    options = dict(progress=False, data=tmp_path)
    here = sastc.run(config, results=tmp_path / "here", device="cpu", **options)
    with second_device() as (device, copies):
        there = sastc.run(config, results=tmp_path / "there", device=device, **options)
    assert there.provenance["device_type"] == "second"
    assert copies["from the host"] > 0
    equal(here, there)


def test_an_interrupted_run_goes_on_there(tiny, tmp_path, monkeypatch):
    config, options = tiny(epochs=3), dict(progress=False, data=tmp_path)
    here = sastc.run(config, results=tmp_path / "here", device="cpu", **options)
    epoch = Trainer.epoch

    def stopped(self, number, bar):
        if self.config.method == "sastc" and number == 2:
            raise KeyboardInterrupt
        return epoch(self, number, bar)

    with second_device() as (device, _):
        monkeypatch.setattr(Trainer, "epoch", stopped)
        with pytest.raises(KeyboardInterrupt):
            sastc.run(config, results=tmp_path / "there", device=device, **options)
        monkeypatch.setattr(Trainer, "epoch", epoch)
        there = sastc.run(config, results=tmp_path / "there", device=device, **options)
    assert there.provenance["resumed_at_epoch"] == 2
    equal(here, there)


@pytest.mark.parametrize(
    "changes",
    [
        dict(target_norm="layer", accumulate=2),
        dict(variant="released", attention="cka", sim_norm="row_l2"),
        dict(method="feature_kd", reduction="sum", surrogate="sigmoid"),
        dict(dataset="digits_dvs", student="vggsnn", stm_distance="euclidean"),
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_nothing_is_copied_between_the_steps_of_an_epoch(tiny, tmp_path, changes):
    """Each copy makes the host wait for the device, and then the device for the host."""

    def copied(steps):
        config = tiny(epochs=1, train_subset=40 * steps, stm_batches=0, **changes)
        with second_device() as (device, copies):
            training = Trainer(config, tmp_path, build.dataset(config, tmp_path), device, progress=False)
            before, found = copies.copy(), []
            losses = training.step.losses

            def watched(*arguments, **options):
                found.append(copies.copy() - before)
                return losses(*arguments, **options)

            training.step.losses = watched
            training.run(None)
        return found

    found = copied(4)
    assert len(found) == 4 * changes.get("accumulate", 1)
    assert found[0]["from the host"] > 0  # labels, order and crops of the epoch
    assert found[0]["to the host"] == 0
    assert all(copies == found[0] for copies in found)


@pytest.mark.parametrize("method", [name for name in STUDENT if name not in METHODS])
def test_other_methods_update_there_and_copy_nothing(tiny, tmp_path, method):
    config = tiny(method=method)
    images = build.dataset(config, tmp_path)
    x, y = torch.rand(40, images.in_channels, 8, 8), torch.arange(40) % images.num_classes

    def losses(device, copies):
        step, found = Step(config, *networks(config, images), device=device), []
        step.begin(0)
        torch.manual_seed(0)
        there = x.to(device), y.to(device)
        for _ in range(2):
            before = dict(copies)
            found.append(step.update(*there)["loss"])
            assert copies == before
        return [loss.item() for loss in found]

    with second_device() as (device, copies):
        there = losses(device, copies)
    assert losses("cpu", {}) == there
