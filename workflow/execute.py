"""Execute one notebook with papermill: ``python workflow/execute.py combination timesteps=3 method=kd``.

Parameters are checked before papermill starts, which by itself only warns of a misspelt one. The executed notebook is
kept under results/notebooks; one that fails is kept with its traceback under results/notebooks/failed.
"""

import argparse
import ast
import json
import os
import sys
from pathlib import Path
from typing import Any

import nbformat

from sastc.config import ConfigError, RunConfig, parse_arguments

ROOT = Path(__file__).parents[1]


def notebook_parameters(notebook: nbformat.NotebookNode) -> set[str]:
    """Names assigned in the cell tagged ``parameters``."""
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            targets = (t for s in ast.parse(cell.source).body if isinstance(s, ast.Assign) for t in s.targets)
            return {t.id for t in targets if isinstance(t, ast.Name)}
    raise ConfigError("the notebook has no cell tagged 'parameters'")


def check(notebook: nbformat.NotebookNode, parameters: dict[str, Any]) -> None:
    """Raise a ConfigError on a parameter that the notebook does not have, or whose value it would refuse."""
    known = notebook_parameters(notebook)
    trains = {"student", "teacher", "dataset"} & known  # these notebooks take every field of RunConfig
    fields = set(RunConfig.fields()) if trains else set()
    for name in parameters:
        if name not in known | fields:
            raise ConfigError(f"unknown parameter {name!r}: must be one of {', '.join(sorted(known | fields))}")
    if trains:
        values = {n: tuple(v) if isinstance(v, list) else v for n, v in parameters.items() if n in fields}
        RunConfig.from_dict(values | ({"method": "teacher"} if "method" not in known else {}))


def execute(source: Path, output: Path, parameters: dict[str, Any], title: str | None = None, **engine: Any) -> None:
    """Run `source` with `parameters` and keep the result as `output`, whole or not at all.

    `engine` are options of papermill's engine.

    Raises
    ------
    ConfigError
        A wrong parameter, before anything runs.
    papermill.PapermillExecutionError
        A cell failed; the notebook with its traceback is in ``failed/`` beside `output`'s folder.
    """
    notebook = nbformat.read(source, as_version=4)
    check(notebook, parameters)
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
            str(prepared),
            str(partial),
            parameters,
            kernel_name="python3",
            cwd=str(ROOT),
            progress_bar=False,
            **engine,
        )
    except papermill.PapermillExecutionError:
        failed.parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial, failed)
        raise
    finally:
        prepared.unlink()
    os.replace(partial, output)
    failed.unlink(missing_ok=True)


def main(arguments: list[str] | None = None, **engine: Any) -> int:
    """Run from the terminal; `engine` as of :func:`execute`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", help="name below notebooks/, without .ipynb")
    parser.add_argument("settings", nargs="*", metavar="key=value")
    parser.add_argument("--output", type=Path, help="default: results/notebooks/own/<notebook>.ipynb")
    parser.add_argument("--parameters", type=json.loads, default={}, help="parameters as JSON")
    parser.add_argument("--title", help="heading of the executed notebook")
    options = parser.parse_args(arguments)
    source = ROOT / "notebooks" / f"{options.notebook}.ipynb"
    output = options.output or ROOT / "results" / "notebooks" / "own" / source.name
    try:
        if not source.exists():
            names = ", ".join(sorted(p.stem for p in source.parent.glob("*.ipynb")))
            raise ConfigError(f"no notebook {options.notebook!r}: must be one of {names}")
        own = notebook_parameters(nbformat.read(source, as_version=4))
        given = parse_arguments(options.settings, own)
        settings = {n: list(v) if isinstance(v, tuple) else v for n, v in given.items()}
        execute(source, output, options.parameters | settings, options.title, **engine)
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
