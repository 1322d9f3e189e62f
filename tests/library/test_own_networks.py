"""Networks of one's own as a student and a teacher of recorded runs."""

import functools
import re
import shutil
from pathlib import Path

import numpy as np
import programs
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
from sastc.references import Own
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
        with pytest.raises(ConfigError, match=f"{name}={value!r}: does nothing with student='small_snn'"):
            own(**{name: value})
    tiny(student=wrapped_vgg11, variant="released")
    with pytest.raises(ConfigError, match=r"gamma=0.7: does nothing with student='wrapped_vgg11'"):
        tiny(student=wrapped_vgg11, gamma=0.7)
    with pytest.raises(
        ConfigError, match=r"width=0.5: does nothing with student='small_snn' and teacher='wrapped_resnet19'"
    ):
        own(width=0.5, teacher=wrapped_resnet19)
    built = build.build_model(own(gamma=0.7), build.dataset(own()), "student").network
    assert built.lif.gamma == 0.7


def test_a_function_itself_is_taken(tiny, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    config = tiny(student=build_snn, method="baseline", teacher="")
    assert config.student == "build_snn"
    assert config.networks["student"].reference.endswith("test_own_networks.py:build_snn")
    built = build.build_model(config, build.dataset(config), "student")
    assert isinstance(built, OwnNetwork)
    assert built.timesteps == 2


WRONG = {
    "a.py:nothing": "a.py has no nothing: it has bare, needy, vgg11, _hidden, Named",
    "a.py:need": "did you mean needy?",
    "a.py:number": "must be a function, or a class, that builds a network, not the network itself",
    "a.py:network": "must be a function, or a class, that builds a network, not the network itself",
    "a.py:needy": "missing a required argument: 'depth': it may ask for num_classes, in_channels, image_size",
    "a.py:vgg11": "its name, vgg11, must begin with a letter, have letters, digits and _, and be none of the library's",
    "a.py:_hidden": "its name, _hidden, must begin with a letter",
    "b.py:x": "b.py cannot be imported: ZeroDivisionError: division by zero (b.py, line 2)",
    "c.py:x": "c.py cannot be read: No such file or directory",
    "a.py": "must be one of '', vgg11, vgg13,",
    "a.py:": "pyramidnet20, or file.py:function",
}
CODE = """from torch import nn

number, network = 1, nn.Linear(2, 2)
def bare(): pass
def needy(depth): pass
def vgg11(): pass
def _hidden(): pass
class Named: pass
"""


@pytest.mark.parametrize("reference", WRONG)
def test_what_is_wrong_is_said_before_any_work(tiny, tmp_path, reference, capsys):
    (tmp_path / "a.py").write_text(CODE)
    (tmp_path / "b.py").write_text("\n1 / 0")
    with pytest.raises(ConfigError, match=re.escape(WRONG[reference])):
        tiny(student=f"{tmp_path}/{reference}")
    assert main(["--results", str(tmp_path / "results"), "train", f"student={tmp_path}/{reference}"]) == 2
    assert "ConfigError: student=" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_what_has_no_name_or_source_of_its_own_is_refused(tiny):
    for code in (functools.partial(build_snn, 10), lambda: None, nn.ReLU(), Maker(), make_nested(4)):
        with pytest.raises(ConfigError, match="must be a function, or a class, at the top of a file or notebook"):
            tiny(student=code)
    with pytest.raises(ConfigError, match=r"its source is not at hand: put it into a file, and give file.py:typed"):
        tiny(student=type("typed", (), {"__module__": "nowhere"}))


class Maker:
    def __call__(self, num_classes):
        return None


def make_nested(channels):
    def nested(num_classes):
        return channels

    return nested


LAYER, LOGITS = torch.zeros(3, 4, 4, 5, 5), torch.zeros(3, 4, 10)


class Returns(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value, self.weight = value, nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return self.value


def network(build, spiking=True, timesteps=3, **changes):
    given = dict(num_classes=10, in_channels=1, image_size=8) | changes
    return OwnNetwork(Own("mine", "mine.py:mine", build, "0"), given, timesteps, spiking, sequences=False)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (LOGITS, "returns Tensor: must be a list of layers (T, B, C, H, W) and logits (T, B, N), here T=3, B=4, N=10"),
        (([], LOGITS), "must be a list of layers"),
        (([LAYER[0]], LOGITS), "network mine.py:mine returns shapes [(4, 4, 5, 5), (3, 4, 10)]: must be"),
        (([LAYER.transpose(0, 1)], LOGITS), "here T=3"),
        (([LAYER], LOGITS.mean(0)), "(T, B, N)"),
        (([LAYER], LOGITS.transpose(0, 1)), "(T, B, N)"),
        (([LAYER], LOGITS[..., :9]), "N=10"),
        (([LAYER, None], LOGITS), "NoneType"),
    ],
)
def test_what_a_student_must_return_is_said(value, words):
    with pytest.raises(RunError, match=re.escape(words)):
        network(lambda: Returns(value))
    assert network(lambda: Returns(([LAYER, LAYER], LOGITS))).feature_shapes() == [(4, 5, 5)] * 2
    with pytest.raises(RunError, match=r"network mine.py:mine built NoneType: must be an nn.Module"):
        network(lambda: None)


class Faulty(nn.Module):
    """Works when it is tried, and fails in one way in training."""

    def __init__(self, fault, num_classes=10):
        super().__init__()
        self.fault, self.conv, self.lif = fault, nn.Conv2d(1, 4, 3, padding=1), sastc.LIF(gamma=1.0)
        self.head = nn.Linear(4, num_classes)
        if fault == "buffer":
            self.register_buffer("kept", torch.zeros(1))
        self.state = None

    def forward(self, x):
        spikes = self.lif(self.conv(x).expand(3, -1, -1, -1, -1))
        if self.fault == "view":
            self.conv(x).view(len(x), -1)
        if self.fault == "state":
            self.state = spikes.sum(0).detach() + (0 if self.state is None else self.state)
        if self.fault == "training" and self.training:
            return self.head(spikes.mean((-2, -1)))
        if self.fault == "buffer":
            self.kept = spikes.detach()
        if self.fault == "item" and spikes.sum().item() < 0:
            raise AssertionError
        return [spikes], self.head(spikes.mean((-2, -1)))


@pytest.mark.parametrize(
    ("fault", "options", "words"),
    [
        (
            "view",
            dict(memory_format="channels_last"),
            "memory_format=channels_last, precision=fp32: RuntimeError: view",
        ),
        ("state", {}, "fails in training with memory_format=contiguous, precision=fp32: RuntimeError: The size of"),
        ("training", {}, "fails in training"),
        ("item", dict(fisher_samples=2), "fails with fisher_samples, which maps it over images"),
    ],
)
def test_what_fails_in_training_fails_before_any(fault, options, words, tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "FAULT", fault)
    config = tiny(student=faulty, timesteps=3, method="kd", **options)
    with pytest.raises(RunError, match=re.escape(words)):
        sastc.run(config, results=tmp_path, progress=False)
    assert not list(tmp_path.rglob("config.json")), "nor was the teacher trained"


def test_fisher_information_is_asked_of_the_student_alone(tiny, tmp_path):
    config = tiny(teacher=counting, method="kd", epochs=1, fisher_samples=2)
    assert "fisher" in sastc.run(config, results=tmp_path, progress=False).measures


class Counting(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, num_classes)

    def forward(self, x):
        layer = self.conv(x).relu()
        assert layer.sum().item() >= 0, "no map over images can ask for a number"
        return [layer], self.head(layer.mean((-2, -1)))


def counting(num_classes):
    return Counting(num_classes)


def faulty(num_classes):
    return Faulty(FAULT, num_classes)


FAULT = ""


def test_a_buffer_that_changes_its_shape_and_an_object_built_twice_are_refused():
    with pytest.raises(RunError, match="changes the shape of kept: must be persistent=False, as it is no weight"):
        network(lambda: Faulty("buffer"))
    once = Faulty("")
    network(lambda: once)
    with pytest.raises(RunError, match="built the same object twice: must be a new one each time"):
        network(lambda: once)


def test_a_teacher_without_one_linear_layer_is_refused_by_the_method_that_needs_it(tiny, tmp_path):
    config = tiny(method="ckdsnn", teacher=two_linear, epochs=1)
    with pytest.raises(
        ValueError, match=re.escape("teacher's classifier=[(8, 16), (10, 8)]: must be one linear layer of 16")
    ):
        sastc.run(config, results=tmp_path, progress=False)
    assert not list(tmp_path.rglob("config.json"))
    assert sastc.run(config.replace(method="kdsnn"), results=tmp_path, progress=False).complete


class TwoLinear(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 16, 3, 2, 1)
        self.classifier = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, num_classes))

    def forward(self, x):
        layer = self.conv(x).relu()
        return [layer], self.classifier(layer.mean((-2, -1)))


def two_linear(num_classes, in_channels):
    return TwoLinear(num_classes, in_channels)


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
    assert sastc.load_model(run)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
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


class Odd(nn.Module):
    def __init__(self, num_classes, timesteps):
        super().__init__()
        self.scale, self.lif = nn.Parameter(torch.ones(num_classes, 64)), sastc.LIF(gamma=1.0)
        self.steps = timesteps

    def forward(self, x):
        spikes = self.lif(x.expand(self.steps, *x.shape))
        return [spikes], spikes.flatten(2) @ self.scale.T


class Functional(Odd):
    def __init__(self, num_classes, timesteps):
        super().__init__(num_classes, timesteps)
        self.scale, self.head = None, nn.Linear(64, num_classes)

    def forward(self, x):
        spikes = self.lif(x.expand(self.steps, *x.shape))
        return [spikes], nn.functional.linear(spikes.flatten(2), self.head.weight)


@pytest.mark.parametrize("kind", [Odd, Functional])
def test_operations_that_cannot_be_counted_cost_no_run(tiny, tmp_path, kind):
    run = sastc.run(tiny(student=kind, method="baseline", teacher=""), results=tmp_path, progress=False)
    assert run.complete
    assert len(run.energy) == 0
    assert "operations are not counted" in (run.path / "log.txt").read_text()


def test_networks_of_one_name_are_not_taken_for_each_other(own, file, tmp_path, capsys):
    text = Path(file).read_text()
    more = "def small_snn(num_classes, timesteps):\n    return SmallSNN(num_classes, 1, timesteps, gamma=1.0)"
    Path(file).write_text(f"{text}\n\n{more}\n")
    alone = dict(method="baseline", teacher="")
    first, second = own(**alone), own(**alone, student=f"{file}:small_snn")
    assert first.name == second.name
    run = sastc.run(first, results=tmp_path, progress=False)
    with pytest.raises(
        RunError, match=r"was made with .*mine.py:SmallSNN, not with .*mine.py:small_snn: give it another"
    ):
        sastc.run(second, results=tmp_path, progress=False)
    other = sastc.run(second.replace(seed=1), results=tmp_path, progress=False)
    assert main(["--results", str(tmp_path), "compare", run.name, other.name]) == 0
    assert re.search(r"student +\S+mine.py:SmallSNN +\S+mine.py:small_snn", capsys.readouterr().out)
    grid = tmp_path / "grid.yaml"
    grid.write_text(
        f"title: x\nnotebook: bench\nquick: [{{student: ['{file}:SmallSNN', '{file}:small_snn'], method: kd}}]"
    )
    with pytest.raises(ConfigError, match="must have different names, to be different runs"):
        sastc.load_experiment(grid)
    assert first == own(**alone)
    Path(file).write_text(text.replace("stride=2", "stride=1"))
    assert sastc.run(first, results=tmp_path, progress=False) == run, "the code that was loaded is the code recorded"
    with pytest.raises(RunError, match="with other code"):
        sastc.load_model(run)


def test_a_named_teacher_must_have_the_code_at_hand(own, file, tmp_path):
    config = own(method="kd")
    teacher = sastc.run(config.teacher_config(), results=tmp_path, progress=False)
    assert sastc.run(config.replace(teacher_run=teacher.name), results=tmp_path, progress=False).complete
    Path(file).write_text(Path(file).read_text().replace("nn.ReLU()", "nn.SiLU()"))
    with pytest.raises(RunError, match=r"with other code of .*:small_ann"):
        sastc.run(own(method="sp", teacher_run=teacher.name), results=tmp_path, progress=False)


def test_experiments_leave_out_what_a_network_does_not_have(file):
    root = Path(__file__).parents[2] / "experiments"
    plan = sastc.load_experiment(
        root / "figure2.yaml", changes={"student": f"{file}:SmallSNN", "teacher": f"{file}:small_ann"}
    )
    assert all(config.taps == "stages" for config in plan.runs)
    with pytest.raises(ConfigError, match="taps='stem_and_stages': does nothing with student='small_snn'"):
        sastc.load_experiment(
            root / "table2.yaml",
            changes=dict(student=f"{file}:SmallSNN", teacher=f"{file}:small_ann", taps="stem_and_stages"),
        )


def test_a_program_is_not_executed_again_and_may_import_its_neighbours(tmp_path):
    (tmp_path / "neighbour.py").write_text("GAMMA = 1.0\n")
    text = EXAMPLE.read_text().replace("import sastc\n", "import sastc\nimport neighbour\n").partition("if __name__")[0]
    program = (
        text
        + """
print("begins")
fields = dict(epochs=1, train_subset=80, gamma=neighbour.GAMMA)
config = sastc.RunConfig(student=SmallSNN, teacher="", method="baseline", **fields)
run = sastc.run(config, progress=False)
print(sastc.load_model(run).name, run.config.networks["student"].reference)
"""
    )
    (tmp_path / "program.py").write_text(program)
    done = programs.run(tmp_path / "program.py", cwd=tmp_path, PYTHONPATH=str(EXAMPLE.parents[2]))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["begins", "small_snn program.py:SmallSNN"]
    (tmp_path / "file.py").write_text(text)
    assert RunConfig(student=f"{tmp_path}/file.py:SmallSNN").student == "small_snn"


def test_a_class_in_a_notebook_is_taken_and_its_change_is_seen(tiny, tmp_path):
    code = """
import sastc
from sastc.config import RunConfig
from own_pair import SmallSNN as Base
class Mine(Base):
    def forward(self, x):
        return super().forward({factor} * x)
student, teacher, method = Mine, "", "baseline"
epochs, train_subset = 1, 80
names = ("student", "teacher", "method", "epochs", "train_subset")
config = RunConfig.from_notebook({{name: globals()[name] for name in names}})
run = sastc.run(config, results="here", progress=False)
"""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    cells = [nbformat.v4.new_code_cell(f"import sys; sys.path.insert(0, {str(EXAMPLE.parent)!r})")]
    cells += [nbformat.v4.new_code_cell(code.format(factor=factor)) for factor in (1, 1, 2)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    with pytest.raises(CellExecutionError, match="was made with other code of Mine"):
        NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert [cell.execution_count for cell in notebook.cells] == [1, 2, 3, 4]
    (run,) = sastc.list_runs(tmp_path / "here")
    assert run.config.student == "mine"
