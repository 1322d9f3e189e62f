"""Your own images through the whole library: class folders, a teacher, a student, a recorded run."""

import tempfile
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

import sastc

root = Path(tempfile.mkdtemp())  # yours: <root>/train/<class>/* and <root>/val/<class>/*
digits = load_digits()
for place, (picture, label) in enumerate(zip(digits.images[:200], digits.target[:200], strict=True)):
    folder = root / "data" / ("val" if place % 5 == 0 else "train") / f"digit{label % 2}"
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray((picture * 15).astype("uint8")).resize((32, 32)).convert("RGB").save(folder / f"{place}.png")

config = sastc.RunConfig(
    dataset="imagefolder", image_size=32, student="resnet18", teacher="resnet34", method="sastc", timesteps=2,
    width=1 / 16, beta=1.0, batch_size=16, epochs=2, teacher_epochs=2, probe_batches=1, stm_batches=1,
)  # fmt: skip
run = sastc.run(config, results=root / "results", data=root / "data")
print(run.name, f"{run.metrics['accuracy']:.1f} %", run.measures["attention"].shape)
student = sastc.load_model(run, data=root / "data")  # with the trained weights, for use elsewhere
print(f"{sum(p.numel() for p in student.parameters()):,} parameters")
