"""Networks of one's own as a student and a teacher of recorded runs."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import sastc
from sastc import build
from sastc.__main__ import main
from sastc.config import ConfigError, RunConfig
from sastc.explorer import explore
from sastc.methods import REGISTRY
from sastc.models.own import OwnNetwork
from sastc.records import Run, RunError
from sastc.verify import verify

EXAMPLE = Path(__file__).parents[2] / "book" / "examples" / "own_pair.py"


@pytest.fixture
def file(tmp_path):
    return shutil.copy(EXAMPLE, tmp_path / "mine.py")


@pytest.fixture
def own(tiny, file):
    return lambda **changes: tiny(**dict(student=f"{file}:SmallSNN", teacher=f"{file}:small_ann", epochs=1) | changes)


def test_a_config_names_them_as_their_functions_are_called(own, file):
    config = own(method="kd")
    assert (config.student, config.teacher) == ("small_snn", "small_ann")
    assert config.name.startswith("digits-small_snn-small_ann-kd-T2-s0-")
    assert f"student={file}:SmallSNN" in config.arguments
    again = RunConfig.from_arguments(config.arguments)
    assert again == config
    assert again.identity == config.identity
    teacher = config.teacher_config()
    assert (teacher.student, teacher.teacher, list(teacher.networks)) == ("", "small_ann", ["teacher"])
    assert RunConfig.from_arguments(teacher.arguments).identity == teacher.identity
    assert config.replace(seed=1).networks == config.networks
    other = config.replace(student="vgg11")
    assert list(other.networks) == ["teacher"]
    assert len({config.identity, other.identity, config.replace(teacher="resnet19").identity}) == 3
    assert (
        config.changed.keys()
        == RunConfig.from_dict(config.to_dict() | {"student": "vgg11", "teacher": "vgg11"}).changed.keys()
    )
    assert "epochs" in config.scaled


def build_snn(num_classes, timesteps, **sizes):
    from own_pair import SmallSNN

    return SmallSNN(num_classes, sizes["in_channels"], timesteps, sizes["gamma"])


def test_a_setting_that_does_nothing_is_an_error(own, tiny):
    for name, value in dict(decay=0.9, student_tap="membrane", tdbn_alpha=1.0, taps="stem_and_stages").items():
        with pytest.raises(ConfigError, match=f"{name}={value!r}: does nothing with student='small_snn': leave it"):
            own(**{name: value})
    tiny(student=wrapped_vgg11, variant="released")
    with pytest.raises(ConfigError, match=r"gamma=0.7: does nothing with student='wrapped_vgg11'"):
        tiny(student=wrapped_vgg11, gamma=0.7)
    network = build.build_model(own(gamma=0.7), build.dataset(own()), "student").network
    assert network.lif.gamma == 0.7


def test_a_function_itself_is_taken(tiny, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    config = tiny(student=build_snn, method="baseline", teacher="")
    assert config.student == "build_snn"
    assert config.networks["student"].reference.endswith("test_own_networks.py:build_snn")
    network = build.build_model(config, build.dataset(config), "student")
    assert isinstance(network, OwnNetwork)
    assert network.timesteps == 2


WRONG = {
    "a.py:nothing": "student='{}a.py:nothing': {}a.py has no nothing: it has bare, needy, vgg11, Named",
    "a.py:need": "did you mean needy?",
    "a.py:number": "must be a function, or a class, that builds a network",
    "a.py:needy": "missing a required argument: 'depth': it may ask for num_classes, in_channels, image_size",
    "a.py:vgg11": "its name, vgg11, must be letters, digits and _, and none of vgg11, vgg13",
    "b.py:x": "{}b.py cannot be imported: ZeroDivisionError: division by zero",
    "c.py:x": "{}c.py cannot be read: No such file or directory",
}


@pytest.mark.parametrize("reference", WRONG)
def test_what_is_wrong_is_said_before_any_work(tiny, tmp_path, reference, capsys):
    (tmp_path / "a.py").write_text(
        "number = 1\n\ndef bare(): pass\n\ndef needy(depth): pass\n\ndef vgg11(): pass\n\nclass Named: pass\n"
    )
    (tmp_path / "b.py").write_text("1 / 0")
    with pytest.raises(ConfigError, match=re.escape(WRONG[reference].format(*[f"{tmp_path}/"] * 2))):
        tiny(student=f"{tmp_path}/{reference}")
    assert main(["--results", str(tmp_path / "results"), "train", f"student={tmp_path}/{reference}"]) == 2
    assert "ConfigError: student=" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


class Returns(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value, self.weight = value, nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return self.value


LAYER, LOGITS = torch.zeros(3, 2, 4, 5, 5), torch.zeros(3, 2, 10)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            LOGITS,
            "returns='Tensor': must be a list of layers (T, B, C, H, W) and logits (T, B, N), here T=3, B=2, N=10",
        ),
        (([], LOGITS), "must be a list of layers"),
        (([LAYER[0]], LOGITS), "returns=[(2, 4, 5, 5), (3, 2, 10)]: must be"),
        (([LAYER[:2]], LOGITS), "here T=3"),
        (([LAYER], LOGITS.mean(0)), "(T, B, N)"),
        (([LAYER], LOGITS[..., :9]), "N=10"),
        (([LAYER, None], LOGITS), "NoneType"),
    ],
)
def test_what_a_student_must_return_is_said(value, words):
    sizes = dict(num_classes=10, in_channels=1, image_size=8, timesteps=3)
    with pytest.raises(ValueError, match=re.escape(words)):
        OwnNetwork(Returns(value), "mine", spiking=True, **sizes)
    OwnNetwork(Returns(([LAYER, LAYER], LOGITS)), "mine", spiking=True, **sizes)
    with pytest.raises(ValueError, match=r"mine=None: must be a function that returns an nn.Module"):
        OwnNetwork(None, "mine", spiking=True, **sizes)


class Wrapped(nn.Module):
    """A network of the library behind the narrow interface."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    @property
    def classifier(self):
        return self.inner.classifier

    def forward(self, x):
        layers, logits = self.inner.features_and_step_logits(x)
        return layers, logits if self.inner.spiking else logits[0]


SIZES = dict(width=1 / 16, image_size=8)


def wrapped_vgg11(num_classes, in_channels, timesteps):
    return Wrapped(
        sastc.create_model(
            "vgg11", num_classes=num_classes, in_channels=in_channels, timesteps=timesteps,
            neuron_options={"gamma": 1.0}, **SIZES,
        )
    )  # fmt: skip


def wrapped_resnet19(num_classes, in_channels):
    return Wrapped(sastc.create_model("resnet19", "relu", num_classes=num_classes, in_channels=in_channels, **SIZES))


@pytest.mark.parametrize("method", ["sastc", "ckdsnn", "seal_kd"])
def test_a_network_of_the_library_behind_it_gives_the_library_s_numbers(tiny, tmp_path, method):
    plain = sastc.run(tiny(method=method), results=tmp_path, progress=False)
    config = tiny(method=method, student=wrapped_vgg11, teacher=wrapped_resnet19)
    own = sastc.run(config, results=tmp_path, progress=False)
    columns = [name for name in plain.history if "seconds" not in name]
    np.testing.assert_allclose(own.history[columns], plain.history[columns], rtol=2e-4)
    measures = own.measures
    assert [name for name in measures if name.startswith("sam")] == [f"sam_layer{k}" for k in (1, 2, 3, 4)]
    for k in (1, 2, 3, 4):
        np.testing.assert_array_equal(measures[f"sam_layer{k}"], plain.measures[f"sam_stage{k}"])
    assert own.energy.energy_nj.sum() == pytest.approx(plain.energy.energy_nj.sum(), rel=1e-6)


@pytest.mark.slow
def test_every_method_trains_them(own, tmp_path):
    for method in REGISTRY:
        run = sastc.run(own(method=method), results=tmp_path, progress=False)
        assert run.complete
        assert np.isfinite(run.history.train_loss).all()
    assert not verify(tmp_path, progress=False)


def test_a_run_is_recorded_resumed_and_read_without_the_file(own, file, tmp_path, monkeypatch, capsys):
    config = own(method="sastc", epochs=2)
    epoch = sastc.train.Trainer.epoch

    def stopped(self, number, bar):
        if number and self.config.method != "teacher":
            raise KeyboardInterrupt
        return epoch(self, number, bar)

    with monkeypatch.context() as patch:
        patch.setattr(sastc.train.Trainer, "epoch", stopped)
        with pytest.raises(KeyboardInterrupt):
            sastc.run(config, results=tmp_path / "a", progress=False)
    run = sastc.run(config, results=tmp_path / "a", progress=False)
    whole = sastc.run(config, results=tmp_path / "b", progress=False)
    assert run.provenance["resumed_at_epoch"] == 1
    assert run.metrics["weights_sha256"] == whole.metrics["weights_sha256"]
    made = run.provenance["networks"]
    assert made["student"]["reference"] == f"{file}:SmallSNN"
    assert made["student"]["sha256"] == sastc.files.sha256(Path(file))
    network = sastc.load_model(run)
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert "small_snn &amp; small_ann" in explore(run).to_html() or "small_snn & small_ann" in explore(run).to_html()

    moved = Path(file).rename(tmp_path / "elsewhere.py")
    read = Run(run.path).config
    assert read == config
    assert read.name == run.name
    assert main(["--results", str(tmp_path / "a"), "show", run.name]) == 0
    assert f"student={file}:SmallSNN" in capsys.readouterr().out
    assert sastc.run(read, results=tmp_path / "a", progress=False) == run
    with pytest.raises(RunError, match="cannot be read"):
        sastc.run(read, results=tmp_path / "a", progress=False, force=True)
    assert run.complete

    moved.rename(file)
    with open(file, "a") as text:
        text.write("\n# changed\n")
    with pytest.raises(
        RunError, match=r"was made with other code of .*mine.py:SmallSNN: .* another name, or start again"
    ):
        sastc.run(own(method="sastc", epochs=2), results=tmp_path / "a", progress=False)
    changed = own(method="sastc", epochs=2)
    with pytest.raises(RunError, match="small_ann-teacher"):  # its file has changed, too
        sastc.run(changed, results=tmp_path / "a", progress=False, force=True)
    sastc.run(changed.teacher_config(), results=tmp_path / "a", progress=False, force=True)
    assert sastc.run(changed, results=tmp_path / "a", progress=False, force=True).complete


@pytest.mark.parametrize("teacher_input", ["mean_frame", "per_step"])
def test_event_data(own, tmp_path, teacher_input):
    config = own(dataset="digits_dvs", timesteps=3, teacher_input=teacher_input, method="twd")
    run = sastc.run(config, results=tmp_path, progress=False)
    assert run.measures["similarity_teacher"].ndim == (3 if teacher_input == "mean_frame" else 4)
    assert run.measures["accuracy_by_step"].shape == (3,)


def test_operations_that_cannot_be_counted_cost_no_run(tiny, tmp_path):
    def odd_snn(num_classes, timesteps):
        class Odd(nn.Module):
            def __init__(self):
                super().__init__()
                self.scale, self.lif = nn.Parameter(torch.ones(num_classes, 64)), sastc.LIF(gamma=1.0)

            def forward(self, x):
                spikes = self.lif(x.expand(timesteps, *x.shape))
                return [spikes], spikes.flatten(2) @ self.scale.T

        return Odd()

    run = sastc.run(tiny(student=odd_snn, method="baseline", teacher=""), results=tmp_path, progress=False)
    assert run.complete
    assert len(run.energy) == 0
    assert "operations are not counted" in (run.path / "log.txt").read_text()
    with pytest.raises(ConfigError, match="network odd_snn: its code is not at hand: it lay in no file of its own"):
        sastc.load_model(Run(run.path))
