"""Python programs in processes of their own, forked from one that has imported the large packages, which takes seconds.

Nothing of this project is imported there: a program that forgets an import of ours fails as in a terminal.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["torch", "torch._dynamo", "pandas", "sklearn.datasets"])


class Program:
    """``python words`` with more in its environment, in a folder; shaped like a ``Popen``.

    The first word is a file, or ``-m`` and a module, or ``-c`` and code.
    """

    def __init__(self, *words: object, cwd: Path | None = None, **environment: str):
        self._output = [tempfile.NamedTemporaryFile() for _ in range(2)]  # noqa: SIM115, they go with this object
        given = [str(word) for word in words], str(cwd or Path.cwd()), os.environ | environment
        self._process = context.Process(target=_run, args=(*given, [file.name for file in self._output]))
        self._process.start()

    def poll(self) -> int | None:
        """Exit status, or None while it runs."""
        return self._process.exitcode

    def kill(self) -> None:
        """End it at once, whatever it does."""
        self._process.kill()

    def wait(self, timeout: float = 300) -> int:
        """Exit status, when it has ended."""
        self._process.join(timeout)
        if self.poll() is None:
            self.kill()
            raise TimeoutError(f"a program takes more than {timeout} seconds")
        return self.poll()

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """What it printed, and its errors, when it has ended."""
        self.wait(timeout)
        return tuple(Path(file.name).read_text() for file in self._output)


def run(*words: object, **options) -> subprocess.CompletedProcess:
    """Run a program to its end."""
    program = Program(*words, **options)
    return subprocess.CompletedProcess(words, program.wait(), *program.communicate())


def _run(words: list[str], folder: str, environment: dict[str, str], output: list[str]) -> None:
    for number, name in enumerate(output, 1):  # for what is not Python's, too
        os.dup2(os.open(name, os.O_WRONLY), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    import torch

    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", "1")))
    how, *sys.argv = words
    first = folder
    if how not in ("-m", "-c"):
        first, sys.argv = str(Path(how).parent), words
    sys.path[:0] = [first, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    if how == "-m":
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif how == "-c":
        exec(sys.argv[0], {"__name__": "__main__"})
    else:
        runpy.run_path(how, run_name="__main__")
