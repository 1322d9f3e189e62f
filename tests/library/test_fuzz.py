"""Whatever a user may type: a valid config, or a ConfigError that names what is wrong; nothing else, no file."""

import contextlib
import dataclasses
import decimal
import fractions
import json
import sys

import nbformat
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sastc.train
from companion.report import ROOT
from sastc import __main__ as program
from sastc.config import ConfigError, RunConfig, parse_arguments
from sastc.experiments import load_experiment
from sastc.records import run_path

sys.path.insert(0, str(ROOT / "workflow"))
import execute

FIELDS = RunConfig.fields()
fuzz = settings(
    max_examples=100, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip

numbers = st.one_of(
    st.integers(-5, 300), st.integers(), st.floats(), st.sampled_from([10**400, -(10**400), 10**4000, 2**63, 2**64]),
    st.fractions(), st.decimals(), st.complex_numbers(), st.booleans(),
    st.sampled_from([
        np.int64(3), np.uint8(200), np.float32(0.5), np.float64("nan"), np.longdouble("1e4000"), np.bool_(True),
        np.timedelta64(3, "s"), np.timedelta64("NaT"), np.array(3), np.array([0.5, 0.7]), np.str_("kd"),
        fractions.Fraction(10**400), decimal.Decimal("sNaN"),
    ]),
)  # fmt: skip
junk = st.recursive(
    st.none()
    | numbers
    | st.text(max_size=6)
    | st.binary(max_size=3)
    | st.sampled_from(["kd", "10", "none", "teacher"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


names_of_any_kind = st.none() | st.integers() | st.floats() | st.text(max_size=6) | st.just(10**4000)


def allowed(field):
    """Values that a field may have, at the ends of their range too."""
    meta, kind = field.metadata, str(field.type)
    if meta["choices"]:
        return st.sampled_from(meta["choices"])
    if "tuple" in kind:
        return st.lists(st.floats(0, 1), max_size=3).map(lambda values: tuple(sorted(values)))
    if "bool" in kind:
        return st.booleans()
    if "float" in kind:
        return st.floats(meta["low"], meta["high"], exclude_min=meta["open_low"], allow_nan=False, allow_infinity=False)
    if "int" in kind:
        return st.integers(meta["low"], min(meta["high"] or 2**63 - 1, 2**63 - 1)) | st.integers(meta["low"], 64)
    return st.text(max_size=8)


some = st.lists(st.sampled_from(sorted(FIELDS)), max_size=4, unique=True)
valid = some.flatmap(lambda names: st.fixed_dictionaries({name: allowed(FIELDS[name]) for name in names}))
mixed = some.flatmap(lambda names: st.fixed_dictionaries({name: allowed(FIELDS[name]) | junk for name in names}))
texts = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ["010", "1e-3", "1_000", "0x10", ".inf", "yes", "null", "[1, [", "!!int x", "!!bool x", "&a [*a]", 5000 * "9"]
)  # fmt: skip


def survives(config):
    """A config is the same after each way that it is written and read."""
    assert None not in dataclasses.asdict(config).values()
    for other in (
        RunConfig.from_dict(config.to_dict()),
        RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))),
        RunConfig.from_arguments(config.arguments),
        config.replace(),
    ):
        assert other == config
        assert (other.identity, other.name) == (config.identity, config.name)


def names_a_field(error):
    """A message that begins with the field, or says that there is none; and that fits on a terminal."""
    message = str(error)
    assert message.partition("=")[0].split(": ")[-1] in FIELDS or "unknown field" in message, message
    assert len(message) < 3000


@fuzz
@given(valid | mixed | st.dictionaries(st.sampled_from(sorted(FIELDS)) | names_of_any_kind, junk, max_size=4))
def test_any_dictionary(values):
    try:
        config = RunConfig.from_dict(values)
    except ConfigError as error:
        names_a_field(error)
    else:
        survives(config)


@pytest.mark.parametrize("name", FIELDS)
def test_numbers_that_no_field_takes_are_named_and_shortened(name):
    for value in (10**400, -(10**400), 10**5000, fractions.Fraction(10**400), 1j, decimal.Decimal(1)):
        with pytest.raises(ConfigError, match=f"^{name}=") as error:
            RunConfig(**{name: value})
        assert len(str(error.value)) < 400


@pytest.mark.parametrize("name", [n for n, field in FIELDS.items() if field.type is not str])
def test_so_are_they_on_the_command_line(name):
    for text in ("1" + 400 * "0", "-1" + 400 * "0", 5000 * "9", "1e999"):
        with pytest.raises(ConfigError, match=f"^{name}=") as error:
            RunConfig.from_arguments([f"{name}={text}"])
        assert len(str(error.value)) < 400


@fuzz
@given(st.lists(st.text(max_size=12) | st.builds("{}={}".format, st.sampled_from(sorted(FIELDS)), texts), max_size=4))
def test_any_words_on_the_command_line(arguments):
    try:
        config = RunConfig.from_arguments(arguments)
    except ConfigError as error:
        assert any(word in str(error) for word in (*FIELDS, "must be key=value"))  # noqa: PT017
    else:
        survives(config)


@fuzz
@given(st.sampled_from(sorted(FIELDS)), st.from_regex(r"[-+.0-9a-z]([-+.:_0-9a-fxoinE]{0,5}[0-9a-z])?", fullmatch=True))
def test_the_command_line_and_a_file_read_the_same(tmp_path, name, text):
    file = tmp_path / "own.yaml"
    file.write_text(f"title: x\nnotebook: x\nquick:\n- {name}: {text}\n")
    words = ["scale=quick", f"{name}={text}"] if name != "scale" else [f"scale={text}"]
    read = []
    for make in (lambda: load_experiment(file).runs[0], lambda: RunConfig.from_arguments(words)):
        try:
            read.append(make())
        except ConfigError as error:
            read.append(str(error).partition("entry 1: ")[2] or str(error))
    assert read[0] == read[1] or "cannot be read" in read[0] or (name == "scale" and "of the block" in read[0])


FORM = "title: x\nnotebook: x\nquick: [{{{}: {}}}]\n{}"
contents = st.text(max_size=40) | st.builds(FORM.format, st.sampled_from(sorted(FIELDS)), texts, texts)


@fuzz
@given(st.binary(max_size=30) | contents.map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_experiment_file(tmp_path, content):
    file = tmp_path / "own.yaml"
    file.write_bytes(content)
    try:
        experiment = load_experiment(file)
    except ConfigError as error:
        assert str(file) in str(error)  # noqa: PT017
        assert len(str(error)) < 5000  # noqa: PT017
    else:
        for config in experiment.runs:
            survives(config)


SOURCES = {
    path.stem: nbformat.read(path, as_version=4)
    for path in (ROOT / "notebooks").glob("*.ipynb")
    if path.stem in ("combination", "teacher", "attention", "sam", "cost")
}
OWN = {stem: sorted(execute.notebook_parameters(notebook)) for stem, notebook in SOURCES.items()}


@fuzz
@given(st.sampled_from(sorted(SOURCES)), st.data())
def test_any_parameters_of_a_notebook(stem, data):
    names = st.sampled_from([*OWN[stem], *sorted(FIELDS)]) | st.text(max_size=4)
    changes = st.dictionaries(st.sampled_from(sorted(FIELDS)) | st.text(max_size=3), junk, max_size=2)
    given = data.draw(st.dictionaries(names, junk | changes | st.sampled_from(["slim", "attention"]), max_size=3))
    with contextlib.suppress(ConfigError):
        execute.check(SOURCES[stem], given)


class Reached(Exception):
    """A training would start."""


@fuzz
@given(
    st.sampled_from(["train", "list", "show", "compare", "explain", "", "trian"]),
    st.lists(st.text(max_size=8) | st.builds("{}={}".format, st.sampled_from(sorted(FIELDS)), texts), max_size=3),
)
def test_any_command_line_of_the_program(tmp_path, monkeypatch, command, words):
    def run(config, **_):
        survives(config)
        raise Reached

    monkeypatch.setattr(sastc.train, "run", run)
    monkeypatch.setattr(program, "_keep_memory", lambda: None)
    with contextlib.suppress(Reached, SystemExit):
        assert program.main(["--results", str(tmp_path / "results"), command, *words]) in (0, 2)
    assert not (tmp_path / "results").exists()


def test_a_file_reads_numbers_as_the_command_line_does(tmp_path):
    file = tmp_path / "own.yaml"
    for text, value in (("seed: 010", 10), ("epochs: 012", 12), ("learning_rate: 1e-3", 0.001), ("epochs: 1_000", 1000),
                        ("stm_log_base: 10", "10"), ("stm_log_base: 2", "2"), ("qk_norm: no", False)):  # fmt: skip
        file.write_text(f"title: x\nnotebook: x\nquick: [{{{text}}}]\n")
        (config,) = load_experiment(file).runs
        name = text.partition(":")[0]
        assert getattr(config, name) == value
        assert getattr(RunConfig.from_arguments([text.replace(": ", "=")]), name) == value
    for text in ("epochs: 1:30", "epochs: 0x10", "epochs: 0o17", "epochs: 2026-01-01", "epochs: yes", "beta: .inf"):
        file.write_text(f"title: x\nnotebook: x\nquick:\n- {text}\n")
        name = text.partition(":")[0]
        with pytest.raises(ConfigError, match=f"quick, entry 1: {name}="):
            load_experiment(file)
        with pytest.raises(ConfigError, match=f"^{name}="):
            RunConfig.from_arguments([text.replace(": ", "=")])
    file.write_text("title: x\nnotebook: x\nquick:\n- {seed: 1, seed: 2}\n")
    with pytest.raises(ConfigError, match=r"own.yaml: cannot be read: 'seed' is given twice \(line 4"):
        load_experiment(file)
    with pytest.raises(ConfigError, match=r"changes='\{seed: 1, seed: 2\}': cannot be read: 'seed' is given twice"):
        parse_arguments(["changes={seed: 1, seed: 2}"], also=["changes"])


def test_a_choice_that_looks_like_a_number_may_be_one():
    for value in (10, np.int64(10), "10", np.str_("10")):
        config = RunConfig(stm_log_base=value)
        assert config == RunConfig(stm_log_base="10")
        assert type(config.stm_log_base) is str
    assert RunConfig.from_notebook({"stm_log_base": 2}).stm_log_base == "2"
    for value in (True, 10.0, 3, None):
        with pytest.raises(ConfigError, match="stm_log_base="):
            RunConfig(stm_log_base=value)


def test_executing_a_notebook_knows_a_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    asked = []
    monkeypatch.setattr(
        execute, "execute", lambda source, output, parameters, title: asked.append((output, parameters))
    )
    assert execute.main(["table2", "--output", "~/own.ipynb", "results=~/runs"]) == 0
    (output, parameters), *_ = asked
    assert output == tmp_path / "own.ipynb"
    assert execute.from_folder(tmp_path, parameters)["results"] == f"{tmp_path}/runs"
    assert run_path(RunConfig(), parameters["results"]).parents[1] == tmp_path / "runs", "from the checkout, too"
