"""The start of every notebook: a name that papermill sets is a parameter or an error."""

import ast
import os

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from papermill.translators import PythonTranslator

from companion import notebook
from companion.report import ROOT
from sastc.config import RunConfig

SOURCES = sorted((ROOT / "notebooks").glob("*.ipynb"))
BASE = ["experiment", "scale", "changes", "results", "data"]


@pytest.fixture
def shell(monkeypatch, tmp_path):
    """An IPython of its own, as in a kernel, that starts in another folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(notebook, "STARTED", str(tmp_path))
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    shell.history_manager.enabled = False  # nothing is written; what is kept in memory counts
    yield shell
    InteractiveShell.clear_instance()


def cells(path):
    """The cell of parameters, and the next one up to the line that starts the notebook."""
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    at = next(i for i, cell in enumerate(code) if "parameters" in cell.metadata.get("tags", []))
    first, second = code[at].source, code[at + 1].source
    head, line, tail = second.partition("notebook.start(globals()")
    assert line, f"{path.name} does not check its parameters"
    return first, head + line + tail.partition("\n")[0]


def start(shell, path, **parameters):
    """Run both as papermill does; the error, or None."""
    first, second = cells(path)
    sources = [first, *([PythonTranslator.codify(parameters)] if parameters else []), second]
    for source in sources:
        result = shell.run_cell(source, store_history=True)
        if error := result.error_before_exec or result.error_in_exec:
            assert source is second, error
            return f"{type(error).__name__}: {error}"
    return None


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_notebook_starts_with_a_check_of_its_parameters(shell, path):
    first, second = cells(path)
    own = {t.id for s in ast.parse(first).body for t in s.targets}
    call = ast.parse(second).body[-1].value
    known = {keyword.arg for keyword in call.keywords}
    known |= set(notebook.TRAINING if "TRAINING" in second else notebook.PAGE)
    assert own <= known
    assert own == known or known == {*RunConfig.fields(), "results", "data", "device"}
    assert start(shell, path) is None
    assert os.getcwd() == str(ROOT)
    assert shell.user_ns["results"] == "results"


@pytest.mark.parametrize("name", ["T", "EPOCHS", "_steps", "__name__", "report", "os", "notebook", "In", "x"])
@pytest.mark.parametrize("path", [ROOT / f"notebooks/{n}.ipynb" for n in ("combination", "teacher", "sam", "table2")])
def test_a_name_of_any_look_that_is_no_parameter_stops_the_notebook(shell, path, name):
    assert start(shell, path, **{name: 4}).startswith(f"ConfigError: unknown parameter '{name}'")


@pytest.mark.parametrize("name", ["T: int", "x = T", "changes['epochs']"])
def test_so_does_whatever_else_papermill_writes_into_its_cell(shell, name):
    assert "ConfigError: unknown parameter" in start(shell, ROOT / "notebooks/energy.ipynb", **{name: 3})


@pytest.mark.parametrize(
    ("stem", "name", "value", "words"),
    [
        ("table2", "changes", 3, "changes=3: must be {setting: value, ...}"),
        ("table2", "changes", None, "changes=None: must be {setting: value, ...}"),
        ("table2", "changes", {"epochss": 1}, "unknown field 'epochss': did you mean epochs"),
        ("benchmarks", "changes", {1: 1}, "unknown field '1'"),
        ("table2", "scale", ["quick"], "scale=['quick']: must be text"),
        ("forensics", "scale", "sliim", "unknown scale 'sliim': did you mean slim"),
        ("table2", "experiment", "tabel2", "unknown experiment 'tabel2': did you mean table2"),
        ("table2", "results", None, "results=None: must be text"),
        ("table2", "results", "a\0b", "must be a folder"),
        ("combination", "data", 5, "data=5: must be text"),
        ("combination", "device", True, "device=True: must be text"),
        ("sam", "image", 1.0, "image=1.0: must be an integer"),
        ("cost", "share", True, "share=True: must be a number"),
    ],
)
def test_a_value_of_another_type_is_named(shell, stem, name, value, words):
    assert words in start(shell, ROOT / f"notebooks/{stem}.ipynb", **{name: value})


def test_what_papermill_set_last_counts(shell):
    """As in JupyterLab, where its cell is corrected and run again, and the start too."""
    path = ROOT / "notebooks/table2.ipynb"
    assert "sclae" in start(shell, path, sclae="slim")
    assert start(shell, path, scale="slim") is None
    shell.run_cell("T = 4\nscratch = 'of the reader'", store_history=True)
    assert shell.run_cell(cells(path)[1], store_history=True).error_in_exec is None


def test_a_name_added_to_the_cell_of_parameters_by_hand_is_an_error_too(shell):
    first, second = cells(ROOT / "notebooks/table2.ipynb")
    shell.run_cell(first + "\nT = 4", store_history=True)
    assert "unknown parameter 'T'" in str(shell.run_cell(second, store_history=True).error_in_exec)


def test_folders_that_papermill_sets_are_those_of_the_caller(shell, tmp_path):
    path = ROOT / "notebooks/combination.ipynb"
    for _ in range(2):  # the start may be run again
        assert start(shell, path, results="out", data=str(ROOT / "data")) is None
        assert shell.user_ns["results"] == str(tmp_path / "out")
        assert shell.user_ns["data"] == str(ROOT / "data")
    assert notebook.from_folder(ROOT, {"results": "out"}) == {"results": "out"}
