"""Event data in configs and runs: presets, schedules, what a teacher's name depends on, and runs from end to end."""

import pytest
import torch
from recordings import recordings_for_training

from sastc.config import ConfigError, RunConfig
from sastc.data import DATASETS, EVENT_DATASETS
from sastc.labels import LABELS
from sastc.train import load_model, run

GESTURE = dict(dataset="dvs_gesture", student="resnet18", timesteps=16, scale="paper")


def test_choices_are_those_of_the_library():
    fields = RunConfig.fields()
    assert fields["dataset"].metadata["choices"] == DATASETS
    assert set(EVENT_DATASETS) | {"vggsnn"} <= set(LABELS)


@pytest.mark.parametrize("dataset", ["dvs_gesture", "dvs_cifar10"])
@pytest.mark.parametrize("method", ["sastc", "teacher"])
def test_published_values_at_paper_scale(dataset, method):
    config = RunConfig(**GESTURE | {"dataset": dataset, "method": method})
    assert (config.epochs, config.learning_rate, config.momentum, config.gamma) == (300, 0.1, 0.9, 0.3)
    assert (config.image_size, config.batch_size) == ((64, 32) if dataset == "dvs_gesture" else (48, 128))
    drops = [e for e in range(1, 300) if config.learning_rate_at(e) < config.learning_rate_at(e - 1)]
    assert drops == [150, 180, 210, 260]
    assert config.resnet18_variant == "standard"
    betas = [config.beta_at(e) for e in range(300)]
    assert betas == [0.01] * 100 + [0.1] * 100 + [1.0] * 100


def test_beta_schedule():
    short = RunConfig(dataset="digits_dvs", epochs=4, beta=8.0)
    assert [short.beta_at(e) for e in range(4)] == pytest.approx([0.08, 0.08, 0.8, 8.0])
    constant = short.replace(beta_schedule="constant")
    assert {constant.beta_at(e) for e in range(4)} == {8.0}
    still = RunConfig(epochs=3, beta=2.0)
    assert {still.beta_at(e) for e in range(3)} == {2.0}
    assert [still.replace(beta_schedule="thirds").beta_at(e) for e in range(3)] == pytest.approx([0.02, 0.2, 2.0])
    with pytest.raises(ConfigError, match=r"beta_schedule='halves': must be one of preset, constant, thirds"):
        RunConfig(beta_schedule="halves")


def test_event_fields_leave_other_runs_their_names():
    """Names of runs recorded before there was event data."""
    config = RunConfig(dataset="cifar10", scale="paper", timesteps=3)
    assert config.to_dict(relevant=True)["teacher_input"] == "mean_frame"
    assert config.teacher_config() == config.replace(timesteps=7).teacher_config()
    assert "timesteps" not in config.teacher_config().to_dict(relevant=True)
    for changes in ({"binning": "count"}, {"event_augment": "none"}, {"teacher_input": "per_step"}):
        assert config.replace(**changes).identity != config.identity


def test_a_teacher_of_event_data_depends_on_the_frames():
    config = RunConfig(**GESTURE)
    teacher = config.teacher_config()
    assert (teacher.timesteps, teacher.name.split("-")[3]) == (16, "T16")
    assert RunConfig.from_arguments(teacher.arguments) == teacher
    assert "timesteps=16" in teacher.arguments
    others = [{"timesteps": 8}, {"binning": "count"}, {"teacher_input": "per_step"}, {"event_augment": "none"}]
    names = {config.replace(**changes).teacher_config().name for changes in others}
    assert len(names | {teacher.name}) == 5
    assert config.replace(decay=0.9).teacher_config() == teacher


@pytest.mark.parametrize("teacher_input", ["mean_frame", "per_step"])
@pytest.mark.parametrize("method", ["baseline", "kd", "feature_kd", "sastc"])
def test_runs_on_frames(tmp_path, tiny, method, teacher_input):
    config = tiny(
        dataset="digits_dvs", student="vggsnn", teacher="resnet18", method=method, timesteps=3, epochs=1,
        teacher_input=teacher_input,
    )  # fmt: skip
    record = run(config, results=tmp_path, progress=False)
    arrays = record.measures
    layers = len(arrays["student_layers"]), len(arrays["teacher_layers"])
    assert arrays["cka"].shape == arrays["mismatch_mse"].shape == (1, 3, *layers)
    assert arrays["accuracy_by_step"].shape == (3,)
    assert arrays["accuracy_by_step"][-1] == pytest.approx(record.metrics["last_accuracy"], abs=1e-4)
    assert arrays["confusion"].sum() == 360
    images = arrays["instance_image"]
    assert images.shape == (16, 3, 2, 8, 8)
    assert arrays["similarity_teacher"].ndim == (3 if teacher_input == "mean_frame" else 4)
    if method == "sastc":
        assert arrays["attention"].shape == (1, 3, *layers)
        assert arrays["attention"].sum(-1) == pytest.approx(1)
    teacher = run(config.teacher_config(), results=tmp_path, progress=False)
    assert teacher.measures["cam"].ndim == 3
    assert len(teacher.measures["accuracy_by_step"]) == (1 if teacher_input == "mean_frame" else 3)
    model = load_model(teacher)
    x = torch.rand(3, 2, 2, 8, 8)
    seen = x.mean(0) if teacher_input == "mean_frame" else x
    torch.testing.assert_close(model(x), model(seen))
    assert model.features(x)[0][0].dim() == (4 if teacher_input == "mean_frame" else 5)


def test_the_loss_follows_the_schedule(tmp_path, tiny):
    options = dict(dataset="digits_dvs", student="vggsnn", teacher="vggsnn", timesteps=2, epochs=3, beta=50.0)
    history = run(tiny(**options), results=tmp_path, progress=False).history
    rest = history["train_loss"] - history["kd_loss"]
    torch.testing.assert_close(
        torch.tensor((rest / history["feature_loss"]).to_numpy()),
        torch.tensor([0.5, 5.0, 50.0]).double(),
        rtol=1e-3,
        atol=0,
    )


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    return recordings_for_training(tmp_path_factory.mktemp("recordings"))


@pytest.mark.slow
@pytest.mark.parametrize("teacher_input", ["mean_frame", "per_step"])
@pytest.mark.parametrize(
    ("dataset", "student", "teacher", "size", "classes"),
    [("dvs_gesture", "resnet18", "resnet19", 64, 11), ("dvs_cifar10", "vggsnn", "vggsnn", 48, 10)],
)
def test_published_files_to_a_trained_student(
    tmp_path, recordings, dataset, student, teacher, size, classes, teacher_input
):
    """Runs of Table 6 at the paper's scale, image size and batch size, but narrow, short, and on a few recordings."""
    small = dict(timesteps=2, width=1 / 32, epochs=1, teacher_epochs=1, stm_batches=1, probe_batches=1)
    pair = dict(dataset=dataset, student=student, teacher=teacher, teacher_input=teacher_input)
    config = RunConfig(scale="paper", **pair, **small)
    record = run(config, results=tmp_path, data=recordings, progress=False)
    assert record.complete
    data = record.provenance["data"]
    assert (data["steps"], data["binning"]) == (2, "time")
    assert all(len(digest) == 64 for digest in data["files"].values())
    assert any(name.endswith(".aedat") for name in data["files"])
    assert "recordings only" in data["name"]
    arrays = record.measures
    assert arrays["instance_image"].shape[1:] == (2, 2, size, size)
    assert arrays["confusion"].shape == (classes, classes)
    assert arrays["attention"].sum(-1) == pytest.approx(1)
    assert record.provenance["teacher"]["run"] == config.teacher_config().name
