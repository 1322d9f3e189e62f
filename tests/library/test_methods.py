"""Methods of the library and of one's own: what they declare, what they see, and what a run keeps of them."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sastc
from sastc import build, methods, records
from sastc.__main__ import main
from sastc.config import DISTIL, EVERY, GROUPS, METHODS, STUDENT, ConfigError, RunConfig
from sastc.experiments import expand
from sastc.labels import LABELS, run_title
from sastc.losses import kd_loss
from sastc.methods import REGISTRY, Method, option
from sastc.methods.kd import KDWithFeatures
from sastc.records import RunError, run_path
from sastc.train import Step, Trainer, networks

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "book" / "examples" / "own_method.py"
CPU = torch.device("cpu")


class Steps(Method):
    """The cross-entropy of every step; what it has seen is kept."""

    needs = ("step_logits",)

    def losses(self, batch):
        """TET's, without its regulariser."""
        type(self).seen = batch
        return {"loss": torch.stack([F.cross_entropy(z.float(), batch.labels) for z in batch.step_logits]).mean()}


class Noisy(Method):
    """Random draws, in the loss and in a module."""

    label, colour, needs, fields = "With noise", "#123456", ("teacher_logits", "teacher_features"), ("temperature",)
    strength: float = option(0.1, "size of the noise", low=0)
    kind: str = option("normal", "its distribution", choices=("normal", "uniform"))

    def build(self, student_shapes, teacher_shapes):
        """One convolution on the last map."""

        class Beside(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv2d(student_shapes[-1][0], teacher_shapes[-1][0], 1)

            def forward(self, features, targets, instances=None):
                return self.conv(features[-1].mean(0)).mean((-2, -1)) - targets[-1].mean((-2, -1))

        return Beside()

    def losses(self, batch):
        """Noise on the teacher's logits, and the mean square of what the convolution leaves."""
        draw = torch.randn if self.kind == "normal" else torch.rand
        noise = self.strength * draw(batch.teacher_logits.shape)
        kd = kd_loss(batch.logits, batch.teacher_logits + noise, batch.labels, temperature=self.config.temperature)
        pulled = batch.trained.square().mean()
        return {"pulled": pulled, "loss": kd + pulled}


@pytest.fixture
def run(tmp_path):
    return lambda config, **options: sastc.run(config, results=tmp_path, progress=False, **options)


@pytest.fixture
def stopped(monkeypatch):
    """Run a call until a method's second epoch begins."""

    def stop(call, name):
        epoch = Trainer.epoch

        def stopping(self, number, *arguments):
            if number and self.config.method == name:
                raise KeyboardInterrupt
            return epoch(self, number, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "epoch", stopping)
            with pytest.raises(KeyboardInterrupt):
                call()

    return stop


def step_and_batch(config):
    dataset = build.dataset(config)
    step = Step(config, *networks(config, dataset))
    x, y, _ = next(Trainer(config, Path("unused"), dataset, CPU, False).train_batches(0))
    return step, x, y


def test_the_papers_methods_are_as_they_were():
    assert METHODS == ("baseline", "kd", "feature_kd", "sastc")
    assert STUDENT[:4] == METHODS
    assert ("teacher", *STUDENT) == EVERY
    assert DISTIL[:3] == METHODS[1:]
    assert [LABELS[m] for m in METHODS] == ["Baseline", "KD", "Feature KD", "SASTC"]
    assert len({kind.colour for kind in REGISTRY.values()}) == len(REGISTRY)


@pytest.mark.parametrize("kind", REGISTRY.values(), ids=list(REGISTRY))
def test_declarations_of_every_method(kind):
    fields = RunConfig.fields()
    assert kind.__doc__
    assert re.fullmatch("[a-z][a-z0-9_]*", kind.name)
    assert all(kind.name in fields[name].metadata["applies"] for name in kind.fields)
    assert set(kind.needs) <= set(methods.NEEDS)
    assert kind.cost > 0
    assert all(fields[name].default is None for name in kind.presets)
    RunConfig(method=kind.name)  # which checks the rest
    assert all(field.metadata["doc"] for field in kind.options.values())


def test_the_base_of_methods_with_a_feature_loss_is_no_method_but_serves_your_own():
    assert "" not in REGISTRY
    with pytest.raises(ConfigError, match="name=''"):
        RunConfig(method=KDWithFeatures)

    class Rates(KDWithFeatures):
        feature_weight: float = option(0.5, "weight", low=0)

        def feature_loss(self, batch):
            return sum(f.mean() for f in batch.features)

    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 4), torch.tensor([0, 1, 3])
    features = [torch.rand(2, 3, 5, 2, 2), torch.rand(2, 3, 6, 1, 1)]
    batch = methods.Batch(
        labels=labels, logits=logits[0], features=features, cross_entropy=None, teacher_logits=logits[1]
    )
    parts = RunConfig(method=Rates(feature_weight=3.0)).new_method().losses(batch)
    rates, kd = features[0].mean() + features[1].mean(), kd_loss(logits[0], logits[1], labels)
    torch.testing.assert_close(parts["feature_loss"], rates)
    torch.testing.assert_close(parts["loss"], kd + 3 * rates)


def test_every_field_has_a_group_and_a_method():
    for name, field in RunConfig.fields().items():
        assert field.metadata["group"] in GROUPS, name
        assert field.metadata["applies"], name


def test_method_files_import_no_torch():
    for path in (ROOT / "sastc" / "methods").glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                words = ast.unparse(node)
                wrong = r"\b(torch|numpy|pandas)\b|sastc\.(?!checks|methods|references)"
                assert not re.search(wrong, words), (path, words)
    code = "import sys, sastc.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_no_other_file_compares_method_names():
    """Pages are about the paper's methods, and may."""
    names = "|".join(METHODS)
    compared = re.compile(rf"""method\w* (==|!=|in|not in) \(?["']({names})["']""")
    library = [p for p in (ROOT / "sastc").rglob("*.py") if not {"pages", "methods"} & set(p.parts)]
    library = [p for p in library if p.name not in ("report.py", "figures.py")]
    found = [(p.name, match[0]) for p in library for match in compared.finditer(p.read_text())]
    assert len(library) > 40
    assert found == []


def test_a_step_of_the_public_class_by_hand(tiny):
    """Loss and update of KD, by the networks alone."""
    config = tiny(method="kd", weight_decay=0.0, momentum=0.0)
    step, x, y = step_and_batch(config)
    model, teacher = networks(config, build.dataset(config))
    model.train()
    loss = kd_loss(model(x), teacher.eval()(x), y, temperature=config.temperature)
    loss.backward()
    step.begin(0)
    sums = step.update(x, y)
    assert sums["loss"].item() == pytest.approx(len(y) * loss.item(), rel=1e-5)
    assert {"cross_entropy", "kd_loss", "loss", "correct"} == sums.keys()
    for (name, found), before in zip(step.model.named_parameters(), model.parameters(), strict=True):
        expected = before.detach() - config.learning_rate * before.grad
        torch.testing.assert_close(found.detach(), expected, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("output", ["mean_current", "leaky_membrane"])
def test_one_forward_pass_gives_features_and_every_steps_logits(tiny, output):
    config = tiny(method=Steps, timesteps=3, output=output)
    step, x, y = step_and_batch(config)
    calls = []
    step.model.stages["stem"].register_forward_hook(lambda *_: calls.append(1))
    step.begin(0)
    losses, _ = step.losses(x, y)
    seen = Steps.seen
    assert len(calls) == 1
    assert seen.step_logits.shape == (3, len(y), 10)
    assert torch.equal(seen.logits, seen.step_logits.mean(0))
    assert [tuple(f.shape[:2]) for f in seen.features] == [(3, len(y))] * len(step.model.tap_names)
    assert (seen.teacher_logits, seen.teacher_features, seen.trained, seen.share) == (None, None, None, 1.0)
    torch.testing.assert_close(seen.logits, step.model(x))
    by_loop = sum(F.cross_entropy(z, y).item() for z in step.model.step_logits(x)) / 3
    assert losses["loss"].item() == pytest.approx(by_loop, rel=1e-5)


def test_features_and_step_logits_are_those_of_the_single_calls(tiny):
    config = tiny()
    for network in networks(config, build.dataset(config)):
        network.eval()
        x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        features, logits = network.features_and_step_logits(x)
        assert torch.equal(logits, network.step_logits(x))
        assert all(torch.equal(a, b) for a, b in zip(features, network.features(x)[0], strict=True))


def test_own_method_is_named_trained_recorded_and_shown(run, tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    own = methods.find("book/examples/own_method.py:LogitMSE")
    given = f"method=book/examples/own_method.py:{own.__name__}"
    config = tiny(method=own, options={"alpha": 2.0})
    assert config.name.startswith("digits-vgg11-resnet19-logit_mse-T2-s0-")
    assert {given, "alpha=2.0"} <= set(config.arguments)
    assert RunConfig.from_arguments(config.arguments) == config
    assert config.name != tiny(method=own).name == run(tiny(), method=own).name
    made = run(tiny(), method=own(alpha=2.0))
    assert made.name == config.name
    # what is recorded
    assert {"logit_mse", "cross_entropy"} <= set(made.history)
    total = made.history.cross_entropy + 2 * made.history.logit_mse
    assert made.history.train_loss.to_list() == pytest.approx(total.to_list(), rel=1e-5)
    recorded = made.provenance["method"]
    assert recorded["sha256"] == records.sha256(EXAMPLE)
    assert recorded["reference"] == "book/examples/own_method.py:LogitMSE"
    assert str(ROOT) not in (made.path / "config.json").read_text()
    assert "mismatch_mse" in made.measures
    # read without the file
    read = made.config
    assert read.method_class.recorded
    assert (read.method, read.alpha, read.name, read.command) == ("logit_mse", 2.0, config.name, config.command)
    assert run_title(made).startswith("VGG-11 & ResNet-19, Logit MSE, T=2, seed 0")
    assert "alpha=2" in run_title(made)
    assert run(read).name == made.name, "what is recorded is returned"
    with pytest.raises(RunError, match="the code of its method is not at hand: python -m sastc train"):
        run(read.replace(seed=1))
    # in the terminal
    words = ["--results", str(tmp_path)]
    for command in (["list"], ["show", made.name], ["train", *config.arguments]):
        assert main([*words, *command]) == 0
        assert made.name in capsys.readouterr().out
    other = run(tiny(method="kd"))
    assert main([*words, "compare", other.name, made.name]) == 0
    told = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert told["method"] == ["kd", "logit_mse"]
    assert told["alpha"] == ["-", "2"]
    assert main(["explain", "book/examples/own_method.py:LogitMSE"]) == 0
    assert "alpha: weight of the squared difference" in capsys.readouterr().out


def test_own_method_without_weight_is_the_baseline(run, tiny):
    own = methods.find(f"{EXAMPLE}:LogitMSE")
    found, base = run(tiny(), method=own(alpha=0.0)), run(tiny(method="baseline"))
    assert found.metrics["weights_sha256"] == base.metrics["weights_sha256"]


@pytest.mark.slow
def test_interrupted_own_method_goes_on_with_the_same_numbers(tiny, tmp_path, stopped):
    options = dict(method=Noisy(strength=0.5), progress=False)
    whole = sastc.run(tiny(), results=tmp_path / "whole", **options)
    stopped(lambda: sastc.run(tiny(), results=tmp_path / "again", **options), "noisy")
    again = sastc.run(tiny(), results=tmp_path / "again", **options)
    assert again.provenance["resumed_at_epoch"] == 1
    assert again.metrics["weights_sha256"] == whole.metrics["weights_sha256"]
    calm = sastc.run(tiny(), results=tmp_path / "whole", method=Noisy(strength=0.0), progress=False)
    assert calm.metrics["weights_sha256"] != whole.metrics["weights_sha256"]


def test_what_an_own_method_trains_beside_the_student_learns(tiny):
    config = tiny(method=Noisy)
    step, x, y = step_and_batch(config)
    weight = step.calibration.conv.weight
    before = weight.detach().clone()
    step.begin(0)
    losses = [step.update(x, y)["pulled"].item() for _ in range(5)]
    assert losses[-1] < losses[0]
    assert not torch.equal(before, weight)


def test_options_of_an_own_method(tiny):
    assert tiny(method=Noisy).name != tiny(method=Noisy(kind="uniform")).name
    assert tiny(method=Noisy).name != tiny(method=Noisy, temperature=2.0).name, "a field that it declares"
    assert tiny(method=Noisy).name == tiny(method=Noisy, beta=2.0).name, "one that it does not"
    assert tiny(method=Noisy).name == tiny(method=Noisy(strength=0.1)).name
    config = tiny(method=Noisy(strength=0.5), seed=3)
    assert config.replace(seed=4).strength == 0.5
    assert config.replace(strength=1).options == {"strength": 1.0, "kind": "normal"}
    assert config.replace(method="kd").options == {}
    assert config.changed["strength"] == 0.5
    assert config.identity == config.replace(seed=4).replace(seed=3).identity


def test_options_in_an_experiment_file():
    given = {"method": f"{EXAMPLE}:LogitMSE", "alpha": [0.5, "1e-1"], "seed": [0, 1]}
    assert [(c.alpha, c.seed) for c in expand(given)] == [(0.5, 0), (0.5, 1), (0.1, 0), (0.1, 1)]
    with pytest.raises(ConfigError, match="unknown field 'alpha'"):
        expand({"method": ["kd"], "alpha": [0.5]})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["method=nowhere/m.py:LogitMSE"], r"nowhere/m\.py cannot be read: No such file"),
        ([f"method={EXAMPLE}:LogitMsE"], "has no LogitMsE: did you mean LogitMSE"),
        ([f"method={EXAMPLE}:sastc"], r"must be a subclass of sastc\.Method"),
        ([f"method={EXAMPLE}:LogitMSE", "alhpa=2"], "unknown field 'alhpa': did you mean alpha"),
        ([f"method={EXAMPLE}:LogitMSE", "alpha=-1"], "alpha=-1: must be a number >= 0"),
        ([f"method={EXAMPLE}:LogitMSE", "alpha=x"], "alpha='x': must be a number >= 0"),
        (["method=logit_mse"], "method='logit_mse': must be one of teacher, baseline"),
        (["method=kd", "alpha=2"], "unknown field 'alpha'"),
    ],
)
def test_mistakes_are_told_before_work_starts(settings, words):
    with pytest.raises(ConfigError, match=words):
        RunConfig.from_arguments(settings)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("1 +", "cannot be imported: SyntaxError"),
        ("import sastc_that_is_not_there", "cannot be imported: ModuleNotFoundError: No module named"),
        ("import sastc\nclass Mine(sastc.Method):\n    pass", r"must have a function losses\(self, batch\)"),
        ("import sastc\nclass Mine(sastc.Method):\n    name = 'kd'\n    def losses(self, batch): ...", "name='kd'"),
        (
            "import sastc\nclass Mine(sastc.Method):\n    needs = ('logits',)\n    def losses(self, b): ...",
            "needs='logits'",
        ),
        (
            "import sastc\nclass Mine(sastc.Method):\n    fields = ('temprature',)\n    def losses(self, b): ...",
            "fields: 'temprature': did you mean temperature",
        ),
        (
            "from sastc import *\nclass Mine(Method):\n    seed: int = option(1, '')\n    def losses(self, b): ...",
            "option seed: must have another name",
        ),
    ],
)
def test_a_file_that_holds_no_method_as_it_should_be(tmp_path, content, words):
    (tmp_path / "mine.py").write_text(content)
    with pytest.raises(ConfigError, match=words):
        RunConfig.from_arguments([f"method={tmp_path}/mine.py:Mine"])


def test_options_of_an_object_are_checked():
    with pytest.raises(ConfigError, match="unknown option 'strenght' of method noisy: did you mean strength"):
        Noisy(strenght=1)
    with pytest.raises(ConfigError, match="kind='laplace': must be one of normal, uniform"):
        Noisy(kind="laplace")


def test_a_loss_that_is_none_is_told(tiny, tmp_path):
    class Wrong(Noisy):
        def losses(self, batch):
            return batch.cross_entropy

    with pytest.raises(RunError, match=r"method wrong: losses\(\) must return a dictionary"):
        sastc.run(tiny(), method=Wrong, results=tmp_path, progress=False)


def test_records_of_other_code_are_not_taken(tiny, tmp_path, stopped):
    file, text = tmp_path / "mine.py", EXAMPLE.read_text()
    file.write_text(text)

    def config():
        return tiny(method=f"{file}:LogitMSE")

    options = dict(results=tmp_path, progress=False)
    stopped(lambda: sastc.run(config(), **options), "logit_mse")
    file.write_text(text.replace("batch.cross_entropy +", "2 * batch.cross_entropy +"))
    assert config().name == run_path(config(), tmp_path).name, "the code is no part of the name"
    for _ in range(2):  # begun, and then complete
        with pytest.raises(RunError, match=r"was made with other code of .*mine\.py:LogitMSE: its SHA-256 was"):
            sastc.run(config(), **options)
        file.write_text(text)
        done = sastc.run(config(), **options)
        file.write_text(text + "\n")
    assert done.complete
    assert sastc.run(config(), force=True, **options).provenance["method"]["sha256"] == records.sha256(file)


def test_a_subclass_of_a_librarys_method_has_its_own_name(tiny):
    class Halved(REGISTRY["sastc"]):
        def feature_loss(self, batch):
            return super().feature_loss(batch) / 2

    config = tiny(method=Halved)
    assert (config.method, config.method_class.label, config.method_class.place) == ("halved", "Halved", None)
    assert config.identity != tiny().identity
    step, x, y = step_and_batch(config)
    full, _, _ = step_and_batch(tiny())
    found, expected = (s.losses(x, y)[0]["feature_loss"].item() for s in (step, full))
    assert found == pytest.approx(expected / 2, rel=1e-6)


def test_code_that_is_repaired_before_an_epoch_is_done_is_taken(tiny, tmp_path):
    file, text = tmp_path / "mine.py", EXAMPLE.read_text()
    file.write_text(text.replace("batch.cross_entropy +", "batch.cross_entropyy +"))
    options = dict(results=tmp_path, progress=False)
    with pytest.raises(AttributeError, match="cross_entropyy"):
        sastc.run(tiny(method=f"{file}:LogitMSE"), **options)
    (begun,) = [run for run in sastc.list_runs(tmp_path) if run.has("provenance.json") and not run.complete]
    file.write_text(text)
    assert sastc.run(tiny(method=f"{file}:LogitMSE"), **options).name == begun.name


def test_options_are_read_back_in_the_type_that_they_have(tmp_path):
    class Mine(Noisy):
        weights: tuple[float, ...] = option((1.0, 2.0), "of the layers")
        alpha: float = option(1, "a share")

    described = json.loads(json.dumps(methods.described(Mine)))
    values = dict(alpha=0.5, weights=[1.0, 3.0], kind="uniform")
    read = RunConfig(method_class=methods.from_description(described), method="mine", options=values)
    given = RunConfig(method=Mine, options=values)
    assert (read.alpha, read.weights, read.identity) == (0.5, (1.0, 3.0), given.identity)
    earlier = {name: value for name, value in described.items() if name != "types"}
    assert methods.from_description(earlier)(weights=[1.0, 3.0]).weights == (1.0, 3.0)


def test_widths_follow_a_methods_own_batch_size():
    class Large(REGISTRY["sastc"]):
        presets = {"batch_size": 256}  # noqa: RUF012

    class Wide(REGISTRY["sastc"]):
        presets = {"mlp_dim": 512}  # noqa: RUF012

    assert (RunConfig(method=Large).batch_size, RunConfig(method=Large).mlp_dim) == (256, 256)
    assert RunConfig(method=Large, batch_size=64).mlp_dim == 64
    assert RunConfig(method=Wide).mlp_dim == 512
