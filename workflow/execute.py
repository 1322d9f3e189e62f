"""Execute one notebook with papermill: ``python workflow/execute.py combination timesteps=3 method=kd``.

Parameters are checked before papermill starts, which by itself only warns of a misspelt one. The executed notebook is
kept under results/notebooks; one that fails is kept with its traceback under results/notebooks/failed.
"""

import argparse
import ast
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import nbformat

from companion.notebook import WORDS, check_kind, from_folder
from sastc.config import ConfigError, RunConfig, method_options, parse_arguments, shown
from sastc.experiments import check_choice, load_experiment
from sastc.records import user_path
from sastc.terminal import print_anywhere

ROOT = Path(__file__).parents[1]
DEEPEST = 10  # levels of a parameter's lists and mappings; what is changed in an experiment has two


def notebook_parameters(notebook: nbformat.NotebookNode) -> dict[str, Any]:
    """Names assigned in the cell tagged ``parameters``, with their values; None for one that is computed."""
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            assigned = [s for s in ast.parse(cell.source).body if isinstance(s, ast.Assign)]
            return {t.id: _literal(s.value) for s in assigned for t in s.targets if isinstance(t, ast.Name)}
    raise ConfigError("the notebook has no cell tagged 'parameters'")


def _literal(node: ast.expr) -> Any:
    with contextlib.suppress(ValueError):
        return ast.literal_eval(node)


def json_object(text: str) -> dict[str, Any]:
    """What ``--parameters`` says, or a ConfigError."""
    try:
        content = json.loads(text)
    except RecursionError:
        raise ConfigError(f"--parameters={shown(text)}: must not be nested deeper than {DEEPEST} levels") from None
    except ValueError as error:
        raise ConfigError(f"--parameters={shown(text)}: must be a JSON object, and is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"--parameters={shown(text)}: must be a JSON object")
    return content


def check_depth(parameters: dict[str, Any]) -> None:
    """Raise a ConfigError on a value that is nested too deeply for what comes after, which recurses."""
    for name, value in parameters.items():
        inside = [value]
        for _ in range(DEEPEST):
            boxes = [box.values() if isinstance(box, dict) else box for box in inside if isinstance(box, (dict, list))]
            inside = [item for box in boxes for item in box]
        if inside:
            raise ConfigError(f"{name}={shown(value)}: must not be nested deeper than {DEEPEST} levels")


def check(notebook: nbformat.NotebookNode, parameters: dict[str, Any]) -> None:
    """Raise a ConfigError on a parameter that the notebook does not have, or whose value it would refuse."""
    own = notebook_parameters(notebook)
    trains = {"student", "teacher", "dataset"} & set(own)  # these notebooks take every field of RunConfig
    fields = {*RunConfig.fields(), *method_options(parameters.get("method"))} if trains else set()
    for name, value in parameters.items():
        check_choice("parameter", name, {*own, *fields})
        kind = type(own.get(name))
        if name not in fields and kind in WORDS:
            check_kind(name, value, kind, own[name])
    if trains:
        values = {n: tuple(v) if isinstance(v, list) else v for n, v in parameters.items() if n in fields}
        if "method" not in own and values.setdefault("method", "teacher") != "teacher":
            raise ConfigError(f"method={values['method']!r}: this notebook trains a teacher; combination, a student")
        RunConfig.from_dict(values)
        if "device" in parameters:
            from sastc.distributed import RunError, chosen_device  # which takes seconds, for torch

            try:
                chosen_device(parameters["device"])
            except RunError as error:
                raise ConfigError(error) from None
    elif "experiment" in own:
        values = own | parameters
        files = {path.stem: path for path in (ROOT / "experiments").glob("*.yaml")}
        check_choice("experiment", values["experiment"], files)
        plan = load_experiment(files[values["experiment"]], values["scale"], values["changes"])
        if plan.needs_runs and not plan.runs:
            raise ConfigError(f"scale={plan.scale!r}: experiments/{plan.name}.yaml lists no runs at this scale")


def execute(source: Path, output: Path, parameters: dict[str, Any], title: str | None = None, **engine: Any) -> None:
    """Run `source` with `parameters` and keep the result as `output`, whole or not at all.

    Relative ``results`` and ``data`` among them are folders below the one that this is called from; those that the
    notebook itself names are the checkout's. `engine` are options of papermill's engine.

    Raises
    ------
    ConfigError
        A wrong parameter, before anything runs.
    papermill.PapermillExecutionError
        A cell failed; the notebook with its traceback is in ``failed/`` beside `output`'s folder. That of a run that
        diverged has not failed: what it says is the result.
    """
    notebook = nbformat.read(source, as_version=4)
    check(notebook, parameters)
    parameters = from_folder(os.getcwd(), parameters)
    import papermill

    if title:
        lines = notebook.cells[0].source.split("\n")
        notebook.cells[0].source = "\n".join([f"# {title}", *lines[1:]])
    output.parent.mkdir(parents=True, exist_ok=True)
    failed = ROOT / "results" / "notebooks" / "failed" / output.name
    prepared, partial = (output.with_name(f".{output.stem}.{part}.ipynb") for part in ("source", "partial"))
    nbformat.write(notebook, prepared)
    try:
        papermill.execute_notebook(
            *(str(path).replace("{", "{{").replace("}", "}}") for path in (prepared, partial)),  # it fills in templates
            parameters,
            kernel_name="python3",
            cwd=str(ROOT),
            progress_bar=sys.stderr.isatty(),
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # its warning that the loopback is not encrypted alarms
            **engine,
        )
    except papermill.PapermillExecutionError as error:
        if error.ename != "DivergedError":
            failed.parent.mkdir(parents=True, exist_ok=True)
            os.replace(partial, failed)
            raise
        print(error.evalue, file=sys.stderr)
    finally:
        prepared.unlink()
    os.replace(partial, output)
    failed.unlink(missing_ok=True)


def main(arguments: list[str] | None = None, **engine: Any) -> int:
    """Run from the terminal; `engine` as of :func:`execute`."""
    print_anywhere()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", help="name below notebooks/, without .ipynb")
    parser.add_argument("settings", nargs="*", metavar="key=value")
    parser.add_argument("--output", type=user_path, help="default: results/notebooks/own/<notebook>.ipynb")
    parser.add_argument("--parameters", default="{}", help="parameters as a JSON object")
    parser.add_argument("--title", help="heading of the executed notebook")
    options = parser.parse_intermixed_args(arguments)
    source = ROOT / "notebooks" / f"{options.notebook}.ipynb"
    output = options.output or ROOT / "results" / "notebooks" / "own" / source.name
    try:
        check_choice("notebook", options.notebook, [path.stem for path in source.parent.glob("*.ipynb")])
        own = notebook_parameters(nbformat.read(source, as_version=4))
        texts = dict(setting.partition("=")[::2] for setting in options.settings)
        given = parse_arguments(options.settings, texts)  # execute checks the names
        settings = {n: list(v) if isinstance(v, tuple) else v for n, v in given.items()}
        settings |= {n: texts[n] for n in settings if isinstance(own.get(n), str)}
        parameters = json_object(options.parameters) | settings
        check_depth(parameters)
        execute(source, output, parameters, options.title, **engine)
        print(output)
    except ConfigError as error:
        print(f"ConfigError: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        if type(error).__name__ != "PapermillExecutionError":
            raise
        print(f"{source.name} failed: {error.ename}: {error.evalue}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
