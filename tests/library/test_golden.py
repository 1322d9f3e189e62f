"""What nobody may change by accident: names of recorded runs, and where a forward pass puts its tensors."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import sastc
from sastc.build import build_model
from sastc.calibration import LayerDistances, SelfAttentiveCalibration
from sastc.config import METHODS, MODELS
from sastc.data import Dataset, Split
from sastc.losses import feature_kd_loss, kd_loss, sastc_loss
from sastc.records import list_runs

# Names of configs of every kind. A change here renames recorded runs: it needs a very good reason.
NAMES = {
    "digits-vgg11-resnet19-sastc-T2-s0-": {},
    "digits-vgg11-resnet19-baseline-T2-s3-": dict(method="baseline", seed=3),
    "cifar10-resnet18-wrn28_4-feature_kd-T4-s0-": dict(
        dataset="cifar10", student="resnet18", teacher="wrn28_4", method="feature_kd", timesteps=4, scale="slim"
    ),
    "cifar100-vgg11-resnet32x4-sastc-T3-s0-": dict(
        dataset="cifar100", teacher="resnet32x4", timesteps=3, scale="paper", variant="released"
    ),
    "imagenet-resnet18-resnet34-kd-T4-s0-": dict(
        dataset="imagenet", student="resnet18", teacher="resnet34", method="kd", timesteps=4, scale="paper"
    ),
    "digits_dvs-vggsnn-resnet18-sastc-T3-s0-": dict(
        dataset="digits_dvs", student="vggsnn", teacher="resnet18", timesteps=3, teacher_input="per_step"
    ),
    "cifar10-resnet19-teacher-s0-": dict(dataset="cifar10", method="teacher", student="", scale="slim"),
}
IDENTITIES = "d0852cffe0 215e36e392 023c2ab308 b6631159ac 6f4d766ac5 2193f10879 b573a94589"


def test_names_stay_as_they_are():
    names = [sastc.RunConfig(**fields).name for fields in NAMES.values()]
    assert [name.removesuffix(name[-10:]) for name in names] == list(NAMES)
    assert " ".join(name[-10:] for name in names) == IDENTITIES


def test_recorded_runs_are_called_as_their_configs(request):
    runs = list_runs(request.config.rootpath / "results" / "slim")
    assert runs
    assert [run.name for run in runs if run.config.name != run.name] == []
    for run in runs:
        assert sastc.RunConfig.from_arguments(run.config.arguments).identity == run.config.identity


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("student", [name for name in MODELS if name != "vggsnn"])
def test_every_forward_pass_stays_on_its_device(student, method):
    """On a pretended GPU: an operation on tensors of two devices fails there as on a real one."""
    config = sastc.RunConfig(dataset="cifar10", student=student, method=method, width=1 / 16, batch_size=4)
    split = Split(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.arange(4))
    names = tuple(map(str, range(10)))
    dataset = Dataset("cifar10", "zeros", names, split, split, (0.5,) * 3, (0.25,) * 3, 4, True, {})
    with FakeTensorMode(), torch.device("cuda"):
        model, teacher = (build_model(config, dataset, role) for role in ("student", "teacher"))
        shapes = model.feature_shapes(), teacher.feature_shapes()
        x, y = torch.zeros(4, 3, 32, 32), torch.zeros(4, dtype=torch.int64)
        features, logits = model.features(x)
        targets, soft = teacher.features(x)
        loss = torch.nn.functional.cross_entropy(logits, y) if method == "baseline" else kd_loss(logits, soft, y)
        if method == "feature_kd":
            loss = loss + feature_kd_loss(LayerDistances(*shapes, "one_to_one")(features, targets))
        elif method == "sastc":
            calibrated = SelfAttentiveCalibration(*shapes, 4)(features, targets)
            loss = loss + sastc_loss(calibrated.attention, calibrated.distances)
        for tensor in (*features, logits, *targets, soft, loss):
            assert tensor.device.type == "cuda"


def test_the_pretended_gpu_would_notice():
    with FakeTensorMode(), pytest.raises(RuntimeError, match="device"):
        torch.zeros(2, device="cuda") + torch.zeros(2)
