"""What a step takes, computed with tensors that have no numbers, against real steps."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from companion import sizing
from sastc import distributed
from sastc.config import METHODS, STUDENT, RunConfig
from sastc.data import Dataset, epoch_batches
from sastc.train import Step, networks


@pytest.fixture
def training(tiny):
    def make(**changes):
        config = tiny(**dict(train_subset=0, batch_size=16) | changes)
        return Step(config, *networks(config, sizing.stand_in(config, config.batch_size)))

    return make


def batch(made: Step):
    """Images and labels as a run gives them to a step."""
    config = made.config
    how = dict(train=True, seed=0, epoch=0, drop_last=True, device="cpu")
    x, y, _ = next(iter(epoch_batches(sizing.stand_in(config, config.batch_size), "train", config.batch_size, **how)))
    return x, y


def step(made: Step):
    """One step as a run makes it, without the comparison of gradients in an epoch's first."""
    x, y = batch(made)
    made.optimizer.zero_grad(set_to_none=True)
    for part in distributed.micro_batches(x, y, made.config.batch_size, made.micro):
        parts, _ = made.losses(part.x, part.y, part)
        (parts["loss"] * part.share).backward()
    made.optimizer.step()


@pytest.mark.parametrize(
    "fields",
    [
        dict(method="teacher"),
        dict(method="baseline"),
        dict(method="kd", timesteps=3),
        dict(method="feature_kd", feature_pairs="1-2,3-3"),
        dict(method="sastc", timesteps=3),
        dict(method="sastc", student="resnet18", teacher="wrn28_4", taps="stem_and_stages", attention="cka"),
        dict(method="sastc", dataset="digits_dvs", teacher_input="per_step", timesteps=3),
        *(dict(method=name, timesteps=3) for name in STUDENT if name not in METHODS),
    ],
)
def test_operations_of_a_step_are_those_of_a_real_one(training, fields):
    made = training(**fields)
    with FlopCounterMode(display=False) as counter:
        step(made)
    assert sizing.step_flops(made.config) == counter.get_total_flops()


def test_operations_of_a_run(tiny):
    config = tiny(method="baseline", epochs=3, train_subset=70, train_fraction=0.5, batch_size=16)
    forward, _ = sizing._network_flops(config, "student")
    assert sizing.run_flops(config) == 3 * (2 * sizing.step_flops(config) + 360 * forward), (
        "35 images: two whole batches"
    )
    with pytest.raises(ValueError, match="dataset='imagefolder'"):
        sizing.run_flops(RunConfig(dataset="imagefolder"))


def allocated(made: Step) -> int:
    """Most bytes that torch's CPU allocator has given out during a step, by its own account."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step(made)
    now = most = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


@pytest.mark.parametrize(
    "fields",
    [
        dict(method="kd"),
        dict(method="sastc"),
        dict(method="sastc", checkpoint="blocks"),
        dict(method="sastc", accumulate=2),
        dict(method="sastc", precision="bf16"),
    ],
)
def test_peak_memory_is_the_allocators(training, fields):
    """Nothing is counted that is not there; convolutions may use some more for themselves."""
    made = training(**dict(student="resnet18", teacher="resnet34", width=1 / 8, image_size=16, timesteps=4) | fields)
    found = sizing.step_memory(made.config)
    step(made)  # momentum
    always = found.weights + found.optimizer + found.teacher
    measured = always + allocated(made)
    assert 0.93 * measured <= found.peak <= 1.02 * measured  # what is freed late differs a little


def test_kept_memory_is_autograds(training):
    made = training(method="sastc", student="resnet18", teacher="resnet34", timesteps=4)
    there = [*made.trained.parameters(), *made.trained.buffers()]
    kept, known = {}, {p.untyped_storage().data_ptr() for p in there}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    x, y = batch(made)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        made.losses(x, y)
    nbytes = sum(storage.nbytes() for place, storage in kept.items() if place not in known)
    found = sizing.step_memory(made.config).kept
    assert nbytes <= found + x.nbytes + y.nbytes
    assert found == pytest.approx(nbytes, rel=0.05)


def test_full_size_is_counted_without_being_allocated():
    config = RunConfig(dataset="cifar10", scale="paper", student="vgg11", teacher="resnet19", timesteps=2)
    found = sizing.step_memory(config)
    assert found.weights > 4 * 20_000_000
    assert found.gradients == found.optimizer == found.weights
    assert found.peak > found.kept > 1 << 30
    less = sizing.step_memory(config.replace(checkpoint="blocks"))
    assert less.weights == found.weights
    assert less.kept < found.kept / 2


def test_stand_in_has_the_shapes_of_the_data(tiny):
    import sastc

    config = tiny(train_subset=0)
    real, made = sastc.load_dataset("digits", image_size=8), sizing.stand_in(config, 5)
    assert isinstance(made, Dataset)
    for name in ("num_classes", "in_channels", "image_size"):
        assert getattr(made, name) == getattr(real, name)
    assert (len(real.train), len(real.test)) == sizing.SIZES["digits"][:2]


def test_a_step_is_sized_where_more_images_are_measured_than_it_has(tiny):
    config = tiny(train_subset=0)
    assert sizing.step_memory(config.replace(fisher_samples=10_000)) == sizing.step_memory(config)
