"""The attention explorer: one self-contained HTML fragment, in the book and live in JupyterLab.

``explore("results/quick")`` shows the recorded attention of every SASTC run below a folder. The fragment holds its
script, its style and its data, and asks no host for anything. :mod:`sastc.explorer.packing` describes the data.
"""

import contextlib
import html
import threading
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from sastc.explorer.packing import pack_page
from sastc.files import user_path
from sastc.labels import run_title
from sastc.records import Run, RunError, list_runs

__all__ = ["Explorer", "explore"]

Source = str | Path | Run
Examples = Callable[[Sequence[Run]], Sequence[dict[str, Any]]]
# joined in this order inside one function
SCRIPTS = ("data.js", "draw.js", "texts.js", "parts.js", "panels.js", "explorer.js")
BUDGET = 1_400_000  # bytes of data in a page; with the book's own files, a page then has less than 3 MB


def explore(
    paths: Source | Sequence[Source] = "results", *, interval: float | None = None, examples: Examples | None = None
) -> "Explorer":
    """Explore the attention of recorded SASTC runs, finished or still training.

    Parameters
    ----------
    paths : path, Run, or a sequence of them
        Run folders, or folders of runs. Below a folder of runs, runs of other methods are left out.
    interval : float, optional
        In Jupyter, look for new epochs every so many seconds, until all runs have ended or ``stop()`` is called.
    examples : callable, optional
        Finds guided examples in the list of runs. Each is ``{"title": ..., "look": ..., "state": {...}}``: the words
        of a button, a sentence that says what to look at, and what the explorer then shows, named as in its address.

    Raises
    ------
    RunError
        A path that does not exist or holds no SASTC run.
    ValueError
        An interval that is not above 0.
    """
    return Explorer([paths] if isinstance(paths, (str, Path, Run)) else paths, interval, examples)


class Explorer:
    """What :func:`explore` returns: shows itself in a notebook; :meth:`refresh` brings it up to date.

    Attributes
    ----------
    runs : list of Run
        The runs shown, in order.
    """

    def __init__(self, paths: Sequence[Source], interval: float | None = None, examples: Examples | None = None):
        if interval is not None and not interval > 0:
            raise ValueError(f"interval={interval!r}: must be above 0 seconds, or None")
        self.paths, self.interval, self.examples = list(paths), interval, examples
        self.runs = find_sastc_runs(self.paths)
        self._display: Any = None  # IPython's handle on what is shown
        self._shown: list[tuple] = []
        self._stop = threading.Event()

    def refresh(self) -> "Explorer":
        """Read the runs again and show their newest state where the explorer was shown last."""
        self.runs = find_sastc_runs(self.paths)
        self._shown = self._state()
        if self._display is not None:
            self._display.update({"text/html": self._repr_html_(), "text/plain": repr(self)}, raw=True)
        return self

    def stop(self) -> None:
        """End the automatic refresh."""
        self._stop.set()

    def to_html(self, budget: int = BUDGET) -> str:
        """The HTML fragment, with about `budget` bytes of data at most."""
        # "<" could end the script element; escaped, it is the same JSON.
        examples = self.examples(self.runs) if self.examples else ()
        data = pack_page(self.runs, budget, examples).replace("<", "\\u003c")
        style, theme, script = _assets()  # the attribute below keeps JupyterLab's shortcuts out
        names = "".join(f"<li>{html.escape(run_title(run))}</li>" for run in self.runs)
        return (
            f'<div class="sastc-explorer" data-lm-suppress-shortcuts="true"><style>{theme}</style>'
            f"<p>The attention explorer is a script. In JupyterLab, trust this notebook to see it.</p><ul>{names}</ul>"
            f'<script type="application/json">{data}</script>'
            f'<template class="style">{style}</template></div><script>{script}</script>'
        )

    def _repr_html_(self) -> str:
        return self.to_html()

    def _ipython_display_(self) -> None:
        from IPython.display import display

        self._stop.set()  # a display before this one is no longer kept up to date
        self._stop = threading.Event()
        self._shown = self._state()
        bundle = {"text/html": self._repr_html_(), "text/plain": repr(self)}
        self._display = display(bundle, raw=True, display_id=True)
        if self.interval is not None:
            threading.Thread(target=self._watch, args=(self._stop,), name="sastc-explorer", daemon=True).start()

    def _watch(self, stop: threading.Event) -> None:
        while not all(run.ended for run in self.runs) and not stop.wait(self.interval):
            with contextlib.suppress(RunError, OSError, ValueError):  # a run being started anew: the next look finds it
                if self._state() != self._shown:
                    self.refresh()

    def _state(self) -> list[tuple]:
        """Changes with every epoch that any run records, and when it ends."""
        files = [run.path / "measures.npz" for run in find_sastc_runs(self.paths)]
        return [(f, f.stat().st_mtime_ns if f.exists() else 0, Run(f.parent).complete) for f in files]

    def __repr__(self) -> str:
        complete = sum(run.complete for run in self.runs)
        return f"Explorer({len(self.runs)} SASTC run{'s' * (len(self.runs) != 1)}, {complete} complete)"


def find_sastc_runs(paths: Sequence[Source]) -> list[Run]:
    """The SASTC runs at or below the paths, each once, in order."""
    runs: dict[Path, Run] = {}
    for given in paths:
        path = given.path if isinstance(given, Run) else user_path(given)
        if not path.is_dir():
            raise RunError(f"paths={str(path)!r}: must be the folder of a run, or a folder of runs; there is none")
        found = _readable(list_runs(path), alone=(path / "config.json").is_file())
        if not found:
            raise RunError(f"paths={str(path)!r}: must hold a SASTC run; only those record attention")
        runs |= {run.path.resolve(): run for run in found}
    if not runs:
        raise RunError("paths=[]: must name at least one run")
    return list(runs.values())


def _readable(runs: Sequence[Run], alone: bool) -> list[Run]:
    """Those whose method has attention; one that cannot be read is an error if asked for `alone`, else a warning."""
    found = []
    for run in runs:
        try:
            kind = run.config.method_class
            if kind is not None and "attention" in kind.fields:
                found.append(run)
        except RunError as error:
            if alone:
                raise
            warnings.warn(f"left out: {error}", stacklevel=4)
    return found


@cache
def _assets() -> tuple[str, str, str]:
    """Style of the explorer, style that adopts the page's theme, and the script."""
    here = files("sastc.explorer")
    style, theme = (here.joinpath(name).read_text("utf-8") for name in ("explorer.css", "theme.css"))
    script = "\n".join(here.joinpath(name).read_text("utf-8") for name in SCRIPTS)
    return style, theme, f'(() => {{\n"use strict";\n{script}\n}})();'
