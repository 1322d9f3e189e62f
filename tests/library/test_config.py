import dataclasses
import hashlib
import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sastc.config import ConfigError, RunConfig, parse_arguments
from sastc.experiments import expand, load_experiment
from sastc.records import list_runs

FIELDS = RunConfig.fields()


def test_published_values_at_paper_scale():
    config = RunConfig(dataset="cifar10", scale="paper")
    expected = dict(
        epochs=240, batch_size=128, learning_rate=0.01, momentum=0.9, weight_decay=5e-4, lr_drop=0.1, beta=1300.0,
        temperature=4.0, gamma=0.3, decay=0.5, threshold=1.0, width=1.0, train_subset=0, image_size=32, mlp_dim=128,
        headline="last", partial_batch="drop", reshuffle=True,
    )  # fmt: skip
    assert {name: getattr(config, name) for name in expected} == expected
    drops = [e for e in range(1, 240) if config.learning_rate_at(e) < config.learning_rate_at(e - 1)]
    assert drops == [150, 180, 210]
    teacher = config.teacher_config()
    assert (teacher.epochs, teacher.learning_rate, teacher.student) == (300, 0.1, "")
    drops = [e for e in range(1, 300) if teacher.learning_rate_at(e) < teacher.learning_rate_at(e - 1)]
    assert drops == [150, 180, 210]
    assert RunConfig(dataset="cifar100", scale="paper").beta == 700
    imagenet = RunConfig(dataset="imagenet", scale="paper", timesteps=4)
    assert (imagenet.epochs, imagenet.batch_size, imagenet.learning_rate, imagenet.weight_decay) == (90, 256, 0.1, 1e-4)
    assert imagenet.beta == 50
    assert [e for e in range(1, 90) if imagenet.learning_rate_at(e) < imagenet.learning_rate_at(e - 1)] == [30, 60]


def test_released_variant():
    config = RunConfig(dataset="cifar10", scale="paper", variant="released")
    assert (config.gamma, config.beta, config.batch_size, config.headline) == (1.0, 800.0, 64, "best")
    assert (config.hidden_init, RunConfig().hidden_init) == ("released", "balanced")
    assert (config.partial_batch, config.reshuffle) == ("drop", False)
    assert RunConfig(variant="released", method="kd").partial_batch == "keep"


def test_a_given_value_wins_over_the_presets():
    config = RunConfig(batch_size=24, gamma=0.7, epochs=3)
    assert (config.batch_size, config.gamma, config.epochs, config.mlp_dim) == (24, 0.7, 3, 24)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["epcohs=3"], ["epcohs", "epochs"]),
        (["epochs=0"], ["epochs=0", ">= 1"]),
        (["epochs=2.5"], ["epochs=2.5", "integer"]),
        (["epochs=true"], ["epochs=True", "integer"]),
        (["method=sastk"], ["method='sastk'", "sastc", "feature_kd"]),
        (["student=alexnet"], ["student='alexnet'", "vgg11"]),
        (["learning_rate=0"], ["learning_rate", "> 0"]),
        (["gamma=.nan"], ["gamma=nan", "> 0"]),
        (["label_noise=1.5"], ["label_noise=1.5", "<= 1"]),
        (["qk_norm=1"], ["qk_norm=1", "true or false"]),
        (["milestones=[0.5, x]"], ["milestones", "list of numbers"]),
        (["milestones=[0.9, 0.5]"], ["milestones", "ascending"]),
        (["mlp_dim=3"], ["mlp_dim=3", "batch_size=32"]),
        (["method=kd", "teacher="], ["teacher", "resnet19"]),
        (["student="], ["student", "vgg11"]),
        (["timesteps"], ["timesteps", "key=value"]),
        (["beta=[1, 2"], ["beta", "cannot be read"]),
        (["epochs=2026-13-01"], ["epochs='2026-13-01'", "integer"]),
        (["epochs=10:20"], ["epochs='10:20'", "integer"]),  # 620 to YAML
        (["beta=1:30.5"], ["beta='1:30.5'", "a number"]),
        (["timesteps=3", "seed=1", "timesteps=4"], ["timesteps=4", "given twice"]),
        (["seed=18446744073709551616"], ["seed=18446744073709551616", "<= 18446744073709551615"]),
        (["teacher_seed=1" + 400 * "0"], ["teacher_seed=1", "<= 18446744073709551615"]),
    ],
)
def test_errors_name_field_value_and_choices(arguments, words):
    with pytest.raises(ConfigError) as error:
        RunConfig.from_arguments(arguments)
    assert all(word in str(error.value) for word in words), error.value


def test_identity_ignores_what_does_not_matter_and_nothing_else():
    base = RunConfig(method="kd")
    assert base.identity == RunConfig(method="kd", beta=7.0, qk_norm=False, feature_pairs="all").identity
    same = {base.identity}
    for change in (
        dict(seed=1), dict(timesteps=3), dict(temperature=2.0), dict(teacher_seed=1), dict(gamma=0.5), dict(width=0.25),
        dict(teacher="wrn28_4"), dict(label_noise=0.1), dict(teacher_epochs=2), dict(data_seed=3), dict(method="sastc"),
    ):  # fmt: skip
        same.add(base.replace(**change).identity)
    assert len(same) == 12


def test_a_new_field_with_an_old_default_leaves_recorded_runs_their_names():
    """Only what differs from a fixed default is hashed: taking fields away that are at theirs changes nothing."""
    config = RunConfig(method="sastc")
    presets = {n for n, f in FIELDS.items() if f.default is None and f.metadata["was"] is None}
    content = {n: v for n, v in config.to_dict(relevant=True).items() if n in presets}
    content |= {"method": "sastc"} if FIELDS["method"].default != "sastc" else {}
    text = json.dumps([content, config.teacher_config().identity], sort_keys=True)
    assert config.identity == hashlib.sha256(text.encode()).hexdigest()[:10]
    assert config.replace(attention="uniform").identity != config.identity


def test_teacher_is_shared_by_all_students():
    teachers = {
        RunConfig(student=s, method=m, timesteps=t, seed=seed).teacher_config().identity
        for s in ("vgg11", "resnet18")
        for m in ("baseline", "kd", "sastc")
        for t in (2, 7)
        for seed in (0, 1)
    }
    assert len(teachers) == 1
    noisy = RunConfig(label_noise=0.3)
    assert noisy.teacher_config().label_noise == 0
    assert noisy.replace(noise_teacher="same_noise").teacher_config().label_noise == 0.3
    few = RunConfig(train_fraction=0.25)
    assert few.teacher_config().train_fraction == 0.25
    assert few.replace(subset_teacher="full").teacher_config().train_fraction == 1
    assert RunConfig(teacher_run="x").teacher_config() is None


def test_json_and_command_round_trips():
    for config in (
        RunConfig(),
        RunConfig(method="teacher", teacher="wrn28_4", epochs=3),
        RunConfig(
            dataset="cifar10", scale="slim", variant="released", milestones=(0.1, 0.9), detach_sim=True, beta=1e-3
        ),
        RunConfig(method="baseline", teacher="", student="resnet18", timesteps=7, seed=4),
    ):
        text = json.loads(json.dumps(config.to_dict()))
        assert RunConfig.from_dict({k: tuple(v) if isinstance(v, list) else v for k, v in text.items()}) == config
        assert RunConfig.from_arguments(config.arguments) == config


def test_replace_follows_the_presets():
    config = RunConfig(dataset="cifar10", scale="paper", epochs=7).replace(variant="released")
    assert (config.beta, config.batch_size, config.mlp_dim, config.epochs) == (800, 64, 64, 7)
    assert config == RunConfig(dataset="cifar10", scale="paper", epochs=7, variant="released")


def test_from_notebook_takes_plain_variables_only():
    namespace = {"timesteps": 3, "_i": "x", "In": [], "results": "here", "sys": json, "milestones": [0.5], "f": len}
    config = RunConfig.from_notebook(namespace, also=("results",))
    assert (config.timesteps, config.milestones) == (3, (0.5,))
    with pytest.raises(ConfigError, match="timestep"):
        RunConfig.from_notebook({"timestep": 3})


junk = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 300), st.floats(), st.text(max_size=5),
    st.lists(st.floats(), max_size=3), st.tuples(st.floats(0, 1), st.floats(0, 1)),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), junk, max_size=5))
def test_fuzzed_values_give_a_config_or_a_clear_error(values):
    try:
        config = RunConfig.from_dict(values)
    except ConfigError as error:
        assert any(name in str(error) for name in FIELDS)  # noqa: PT017
    else:
        assert None not in dataclasses.asdict(config).values()
        assert config.name
        assert config.replace() == config


def test_integers_are_decimal():
    values = parse_arguments(["epochs=010", "batch_size=+064", "seed=18446744073709551615", "beta=1e3", "width=0.25"])
    assert values == {"epochs": 10, "batch_size": 64, "seed": 2**64 - 1, "beta": 1000.0, "width": 0.25}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=12) | st.builds("{}={}".format, st.sampled_from(sorted(FIELDS)), st.text(max_size=6))))
def test_fuzzed_arguments_give_a_config_or_a_clear_error(arguments):
    try:
        RunConfig.from_dict(parse_arguments(arguments))
    except ConfigError as error:
        assert str(error)  # noqa: PT017


def test_grids_are_expanded():
    configs = expand({"student": ["vgg11", "resnet18"], "seed": [0, 1, 2], "milestones": [0.5, 0.75]})
    assert len(configs) == 6
    assert {c.milestones for c in configs} == {(0.5, 0.75)}


def test_settings_that_go_together_are_one_axis():
    groups = [{"seed": 0, "teacher_seed": 4}, {"seed": "1", "method": "twd", "teacher_weight": 0.5}]
    configs = expand({"method": ["kd", "twd"], "together": groups[:1]})
    assert [(c.method, c.seed, c.teacher_seed) for c in configs] == [("kd", 0, 4), ("twd", 0, 4)]
    configs = expand({"epochs": [2, 3], "together": groups})
    assert [(c.method, c.seed, c.epochs) for c in configs] == [
        ("sastc", 0, 2),
        ("sastc", 0, 3),
        ("twd", 1, 2),
        ("twd", 1, 3),
    ]
    assert configs[-1].teacher_weight == 0.5
    assert [c.seed for c in expand({"together": groups, "seed": 7, "method": "twd"})] == [7, 7], "the entry goes before"
    for wrong in ([], {"seed": 0}, [0], None):
        with pytest.raises(ConfigError, match=r"together=.*: must be a list of {setting: value, ...}"):
            expand({"together": wrong})
    with pytest.raises(ConfigError, match=r"sede.*seed"):
        expand({"together": [{"sede": 1}]})


def test_experiments_of_the_repository_are_valid(request):
    files = sorted((request.config.rootpath / "experiments").glob("*.yaml"))
    assert {f.stem for f in files} >= {"table2", "attention"}
    for file in files:
        for scale in ("quick", "slim", "paper"):
            load_experiment(file, scale)
    path = request.config.rootpath / "experiments" / "table2.yaml"
    table2 = load_experiment(path, "quick")
    pairs = {(c.student, c.teacher) for c in table2.runs if c.method == "sastc" and c.timesteps == 2}
    assert len(pairs) == 8
    runs = load_experiment(path, "paper").runs
    assert len(runs) == (13 * 3 + 5) * 3 * 3  # pairs x methods + baselines, x T x seeds


def test_experiment_errors_name_file_and_entry(tmp_path):
    file = tmp_path / "odd.yaml"
    file.write_text("title: x\nnotebook: table2\nquick:\n  - {student: vgg11}\n  - {studnet: vgg11}\n")
    with pytest.raises(ConfigError, match=r"odd.yaml: quick, entry 2: .*studnet"):
        load_experiment(file)
    file.write_text("title: x\n")
    with pytest.raises(ConfigError, match=r"odd.yaml: must have title and notebook"):
        load_experiment(file)
    file.write_text("title: x\nnotebook: table2\nquik: []\n")
    with pytest.raises(ConfigError, match=r"unknown key of .*odd.yaml 'quik': did you mean quick"):
        load_experiment(file)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("quick: 5", "quick=5: must be a list of {setting: value, ...}"),
        ("quick: {student: vgg11}", "quick={'student': 'vgg11'}: must be a list of {setting: value, ...}"),
        ("quick: [vgg11]", "quick=['vgg11']: must be a list of {setting: value, ...}"),
        ("of: table2", "of='table2': must be a list of text"),
        ("of: [own]", "of=['own']: own itself reads the runs of this file"),
        ("of: [other]", "of=['own']: own itself reads the runs of this file"),
        ("of_record: [huge]", "of_record=['huge']: must be made of quick, slim, quarter, paper"),
        ("one_page: 1", "one_page=1: must be true or false"),
        ("title: 5", "title=5: must be text"),
        ("notebook:", "notebook=None: must be text"),
        ("quick: [{seed: 1}, {method: []}]", "quick, entry 2: method=[]: must have at least one value"),
        ("quick: [{scale: slim}]", "quick, entry 1: scale='slim': must be that of the block, quick"),
        ("quick: [{learning_rate: fast}]", "quick, entry 1: learning_rate='fast': must be a number"),
    ],
)
def test_mistakes_in_an_experiment_are_named_before_work_starts(tmp_path, lines, words):
    (tmp_path / "other.yaml").write_text("title: x\nnotebook: table2\nof: [own]\n")
    form = {"title": "title: x", "notebook": "notebook: table2"} | {lines.partition(":")[0]: lines}
    (tmp_path / "own.yaml").write_text("\n".join(form.values()))
    with pytest.raises(ConfigError) as error:
        load_experiment(tmp_path / "own.yaml")
    assert words in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_settings_of_an_experiment_are_read_as_on_the_command_line(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("title: x\nnotebook: x\nquick: [{learning_rate: [1e-3, 0.5], milestones: []}]\nslim:\n")
    runs = load_experiment(file).runs
    assert list(runs) == [
        RunConfig.from_arguments([f"learning_rate={rate}", "milestones=[]"]) for rate in ("1e-3", "0.5")
    ]
    assert [run.learning_rate for run in runs] == [0.001, 0.5]
    assert not load_experiment(file, "slim").runs
    with pytest.raises(ConfigError, match="unknown scale 'sliim': did you mean slim"):
        load_experiment(file, "sliim")
    with pytest.raises(ConfigError, match="scale='slim': must be that of the block, quick"):
        load_experiment(file, changes={"scale": "slim"})


def test_choices_are_those_of_the_code_that_uses_them():
    """fields.py imports nothing that is slow, so it repeats these names; here they are held together."""
    from sastc import models, neurons, stm

    choices = {name: field.metadata["choices"] for name, field in FIELDS.items()}
    assert set(choices["student"]) - {""} == set(models.MODELS)
    assert set(choices["surrogate"]) == set(neurons.SURROGATES)
    assert set(choices["stm_log_base"]) == set(stm.LOG_BASES)


def test_what_a_scale_changes_and_what_a_run_changes():
    config = RunConfig(dataset="cifar10", scale="slim", beta=3.0, seed=4, qk_norm=False)
    assert config.changed == {"beta": 3.0, "qk_norm": False}
    assert config.scaled["beta"] == (3.0, 1300.0)
    assert config.scaled["gamma"] == (1.0, 0.3)
    assert config.scaled["train_subset"] == (10_000, 0)
    assert "milestones" not in config.scaled, "shares of the epochs are the same"
    assert RunConfig(dataset="cifar10", scale="paper").scaled == {}
    assert "beta" not in config.replace(method="kd").scaled
    assert RunConfig(method="teacher", batch_size=64).changed == {"batch_size": 64}


def test_numbers_of_numpy_become_pythons():
    given = dict(timesteps=np.int64(3), beta=np.float32(0.5), seed=np.uint8(7), milestones=(np.float32(0.5), 0.75))
    config = RunConfig(**given)
    assert config == RunConfig(timesteps=3, beta=0.5, seed=7, milestones=(0.5, 0.75))
    assert [type(getattr(config, name)) for name in ("timesteps", "beta", "seed")] == [int, float, int]
    assert config.identity == RunConfig(**{name: getattr(config, name) for name in given}).identity
    with pytest.raises(ConfigError, match="timesteps="):
        RunConfig(timesteps=np.float64(3))


@pytest.mark.slow
def test_modules_are_attributes_of_the_package():
    code = "import sastc; print(sastc.attention.attention_bounds(2), sastc.data.__name__); sastc.nothing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "(0.11920292202211755, 0.8807970779778824) sastc.data\n"
    assert "module 'sastc' has no attribute 'nothing'" in done.stderr


def test_commands_can_be_pasted():
    config = RunConfig(milestones=(0.5, 0.75), teacher_run="a b", train_fraction=0.1)
    words = shlex.split(config.command)
    assert words[:4] == ["python", "-m", "sastc", "train"]
    assert RunConfig.from_arguments(words[4:]) == config


def test_from_notebook_refuses_settings_a_level_too_deep():
    with pytest.raises(ConfigError, match="unknown field 'settings'"):
        RunConfig.from_notebook({"settings": {"epochs": 1}, "LABELS": {"kd": "KD"}})
    with pytest.raises(ConfigError, match="unknown field 'result': did you mean results"):
        RunConfig.from_notebook({"result": "x"}, also=("results", "data"))


def test_the_released_teacher_shuffles_and_its_recorded_runs_keep_their_names():
    student = RunConfig(dataset="cifar10", scale="slim", variant="released")
    assert not student.reshuffle
    assert student.teacher_config().reshuffle
    assert RunConfig(method="teacher", variant="released").reshuffle
    recorded = student.replace(teacher_reshuffle=False)
    assert not recorded.teacher_config().reshuffle
    assert recorded.name != student.name
    root = Path(__file__).parents[2]
    names = [run.name for run in list_runs(root / "results")]
    assert [run.name for run in list_runs(root / "results") if run.config.name != run.name] == []
    planned = {c.name for c in load_experiment(root / "experiments" / "variants.yaml", "slim").runs}
    released = [run.name for run in list_runs(root / "results") if run.config.variant == "released"]
    assert {name for name in released if "-teacher-" not in name} <= planned
    assert len(names) == len(set(names))
