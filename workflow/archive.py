"""Pack the recorded runs for a repository of data: ``python workflow/archive.py [--out FILE]``.

The result is one zip file: the records below ``results/``, and ``ro-crate-metadata.json``, which describes them in the
words of RO-Crate 1.1 (https://w3id.org/ro/crate/1.1): every run is a dataset with its settings, what came out, its
teacher, the commit and machine that made it, and its files with their hashes. Upload it with the source archive of the
same commit; ``CITATION.cff`` has the title, authors and licence that the form asks for.
"""

import argparse
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from sastc.records import Run, list_runs
from sastc.verify import verify

ROOT = Path(__file__).parents[1]
Entity = dict[str, Any]
REPORTED = ("accuracy", "last_accuracy", "best_accuracy", "stm", "parameters", "train_seconds_per_epoch")


def value(subject: str, name: str, found: Any) -> Entity:
    """A name and what it is, of a run."""
    return {"@id": f"#{subject}/{name}", "@type": "PropertyValue", "name": name, "value": found}


def describe(run: Run, folder: str) -> Iterator[Entity]:
    """The run, what made it, its settings and its files; `folder` is its place in the archive, with a slash."""
    facts, metrics, config = run.provenance, run.metrics, run.config
    settings = [value(run.name, name, found) for name, found in config.to_dict(relevant=True).items()]
    results = [value(f"{run.name}/result", name, metrics[name]) for name in REPORTED if name in metrics]
    sums = run.sums or {}
    files = [
        {
            "@id": folder + name,
            "@type": "File",
            "name": name,
            "contentSize": str((run.path / name).stat().st_size),
            "sha256": sums[name],
        }
        for name in sorted(sums)
        if (run.path / name).exists()
    ]
    software = {"@id": f"#commit-{facts['commit']}", "@type": "SoftwareSourceCode", "name": "sastc"}
    software |= {"version": facts["commit"] or "unknown", "programmingLanguage": f"Python {facts['python']}"}
    action = {
        "@id": f"#{run.name}/training",
        "@type": "CreateAction",
        "name": facts["command"],
        "startTime": facts["started"],
        "endTime": metrics["finished"],
        "instrument": {"@id": software["@id"]},
        "object": [{"@id": s["@id"]} for s in settings],
        "result": {"@id": folder},
        "description": f"on {facts['device']}; uncommitted changes: {'yes' if facts['dirty'] else 'no'}",
    }
    dataset = {
        "@id": folder,
        "@type": "Dataset",
        "name": run.name,
        "description": f"{config.method} on {facts['data']['name']}, scale {config.scale}",
        "hasPart": [{"@id": f["@id"]} for f in files],
        "variableMeasured": [{"@id": r["@id"]} for r in results],
    }
    if teacher := facts.get("teacher"):
        dataset["isBasedOn"] = {"@id": f"{Path(folder).parent.as_posix()}/{teacher['run']}/"}
    yield from (dataset, action, software, *settings, *results, *files)


def crate(runs: list[Run], results: Path, citation: Entity) -> Entity:
    """The whole description of `runs`, which lie below `results`."""
    entities: dict[str, Entity] = {}
    for run in runs:
        for entity in describe(run, f"results/{run.path.relative_to(results).as_posix()}/"):
            entities.setdefault(entity["@id"], entity)
    for entity in entities.values():  # a teacher without a record of its own is named, not linked
        if (of := entity.get("isBasedOn")) and of["@id"] not in entities:
            entity["isBasedOn"] = Path(of["@id"]).name
    authors = [{"@id": f"#author-{n}", "@type": "Organization", **a} for n, a in enumerate(citation["authors"], 1)]
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": citation["title"],
        "description": citation["abstract"].strip(),
        "license": {"@id": f"https://spdx.org/licenses/{citation['license']}"},
        "version": str(citation["version"]),
        "datePublished": max((run.metrics["finished"] for run in runs), default="")[:10],
        "author": [{"@id": a["@id"]} for a in authors],
        "keywords": ", ".join(citation["keywords"]),
        "hasPart": [{"@id": e["@id"]} for e in entities.values() if e["@type"] == "Dataset"],
        "mentions": [{"@id": e["@id"]} for e in entities.values() if e["@type"] == "CreateAction"],
    }
    licence = {"@id": root["license"]["@id"], "@type": "CreativeWork", "name": citation["license"]}
    head = {
        "@id": "ro-crate-metadata.json",
        "@type": "CreativeWork",
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
        "about": {"@id": "./"},
    }
    graph = [head, root, licence, *authors, *entities.values()]
    return {"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": graph}


def main(arguments: list[str] | None = None) -> Path:
    """Check every record, describe all and pack them; returns the file."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    home = os.path.expanduser
    parser.add_argument("--results", type=lambda text: Path(home(text)), default=ROOT / "results")
    parser.add_argument("--out", type=lambda text: Path(home(text)), help="default: sastc-<version>-runs.zip")
    options = parser.parse_args(arguments)
    out = options.out or ROOT / f"sastc-{citation['version']}-runs.zip"
    ended = [run for run in list_runs(options.results) if run.ended and run.config.scale != "quick"]
    runs = [run for run in ended if run.complete]
    if damaged := verify(options.results):
        parser.error(f"{len(damaged)} records are damaged: python -m sastc verify {options.results} names them")
    text = json.dumps(crate(runs, options.results, citation), indent=1, ensure_ascii=False)
    partial = out.with_name(f".{out.name}.partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("ro-crate-metadata.json", text)
        for run in tqdm(ended, desc="packing", unit="run"):
            for path in sorted(p for p in run.path.iterdir() if p.is_file() and not p.name.startswith(".")):
                if path.suffix != ".pt":  # weights and checkpoints are made again by the recorded command
                    file.write(path, f"results/{path.relative_to(options.results).as_posix()}")
        beside = [
            *options.results.glob("*.*"),
            *options.results.glob("*/*.csv"),
            *options.results.glob("benchmarks/**/*.json"),
        ]
        for path in sorted(beside):
            file.write(path, f"results/{path.relative_to(options.results).as_posix()}")
        for name in ("CITATION.cff", "LICENSE"):
            file.write(ROOT / name, name)
    os.replace(partial, out)
    print(f"{out}: {len(runs)} runs")
    return out


if __name__ == "__main__":
    main()
