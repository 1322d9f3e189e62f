"""A copy of the project that runs its own code."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from tiny import TINY

FOLDERS = [
    "_config.yml",
    "CHANGELOG.md",
    "CITATION.cff",
    "benchmarks",
    "book",
    "data",
    "experiments",
    "notebooks",
    "paper",
    "sastc",
    "companion",
    "workflow",
]


class Project:
    """A copy of the project that runs its own code."""

    def __init__(self, source: Path, root: Path):
        self.root = root
        for name in FOLDERS:
            if (source / name).is_dir():
                ignore = shutil.ignore_patterns("__pycache__", "_build", ".cache", "*.parquet")
                shutil.copytree(source / name, root / name, symlinks=True, ignore=ignore)
            else:
                shutil.copy(source / name, root / name)
        paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
        names = dict(PYTHONPATH=str(root), PATH=os.pathsep.join(paths), OMP_NUM_THREADS="1")
        self.environment = os.environ | names

    def start(self, *arguments: str) -> subprocess.Popen:
        options = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self.root)
        return subprocess.Popen([sys.executable, *arguments], env=self.environment, **options)

    def run(self, *arguments: str) -> tuple[int, str]:
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=900)
        return process.returncode, output

    def experiment(self, name: str, *entries: dict) -> None:
        path = self.root / "experiments" / f"{name}.yaml"
        content = yaml.safe_load(path.read_text()) if path.exists() else {"title": name, "notebook": "attention"}
        path.write_text(yaml.safe_dump(content | {"quick": [TINY | e for e in entries]}))

    @property
    def plan(self) -> list[str]:
        """Names of all jobs."""
        code = "import json, plan; print(json.dumps(list(plan.make_plan('quick', {}, (), 'results', 'data'))))"
        environment = self.environment | {"PYTHONPATH": f"{self.root}:{self.root / 'workflow'}"}
        command = [sys.executable, "-c", code]
        return json.loads(subprocess.run(command, cwd=self.root, env=environment, capture_output=True).stdout)
