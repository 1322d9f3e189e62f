"""What a run records of a fixed set of test images: attention and CKA after every epoch, the rest at the end."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from sastc.calibration import Calibration, SelfAttentiveCalibration
from sastc.cka import linear_cka
from sastc.data import Dataset
from sastc.models.network import Network
from sastc.sam import class_activation_map, contribution_map, spike_activation_map

INSTANCES = 16  # images that are recorded one by one
MATRIX = 64  # images in the recorded similarity matrices

Batches = Callable[[Dataset], Iterator[tuple[Tensor, Tensor, Tensor]]]


class Probe:
    """A random set of at most `size` test images of a dataset, the same in every epoch of every run.

    `batches` yields (x, y, index) batches of a dataset's test split; the networks run inside ``autocast()``.
    """

    def __init__(self, dataset: Dataset, size: int, batches: Batches, autocast: Callable[[], torch.autocast]):
        index = torch.randperm(len(dataset.test), generator=torch.Generator().manual_seed(0))[:size]
        self.dataset = replace(dataset, test=dataset.test.take(index))
        self.index, self._batches, self._autocast = index, batches, autocast

    @torch.no_grad()
    def epoch(self, model: nn.Module, teacher: nn.Module, calibration: nn.Module) -> dict[str, Tensor]:
        """CKA of all pairs of layers, and for SASTC attention and distances; networks in evaluation mode."""
        calibration.eval()
        attention, distance, labels, cka = [], [], [], []
        whole = 0
        for x, y, _ in self._batches(self.dataset):
            with self._autocast():
                features, targets = model.features(x)[0], teacher.features(x)[0]
                if isinstance(calibration, SelfAttentiveCalibration):
                    result = calibration(features, targets)
                    attention.append(result.attention)
                    distance.append(result.distances)
                    labels.append(y)
                else:
                    result = Calibration(None, None, *SelfAttentiveCalibration.similarities(features, targets))
            whole = whole or len(y)  # images of a batch; CKA's precision depends on them, so a smaller last one is out
            if len(y) == whole:
                unbiased = whole >= 4  # its estimator needs as many
                cka.append(linear_cka(result.student_similarity, result.teacher_similarity, unbiased=unbiased))
        arrays = {"cka": torch.stack(cka).mean(0)}
        if attention:
            attention, distance, labels = torch.cat(attention, 1), torch.cat(distance, 1), torch.cat(labels)
            of_class = [attention[:, labels == c].mean(1) for c in range(self.dataset.num_classes)]
            arrays["attention"] = attention.mean(1)
            arrays["attention_class"] = torch.stack(of_class)  # NaN for a class that has no image among these
            arrays["attention_instance"] = attention[:, :INSTANCES].transpose(0, 1)
            arrays["distance"] = distance.mean(1)
        return arrays

    @torch.no_grad()
    def final(self, model: nn.Module, teacher: nn.Module | None) -> dict[str, np.ndarray]:
        """Arrays that pages show image by image; `model` is the student, or the teacher of a teacher's own run."""
        test = self.dataset.test
        found: list[Tensor] = []
        for x, _, _ in self._batches(self.dataset):
            found.append(x)
            if sum(part.shape[part.dim() - 4] for part in found) >= INSTANCES:
                break
        x = found[0] if len(found) == 1 else torch.cat(found, found[0].dim() - 4)
        first = x.split(INSTANCES, x.dim() - 4)[0]
        with self._autocast():
            logits = model.logits_by_step(first).float()
        arrays = {
            "instance_index": self.index[:INSTANCES],
            "instance_label": test.labels[:INSTANCES],
            "instance_logits": logits.transpose(0, 1),
            "class_names": np.array(self.dataset.classes),
        }
        if isinstance(test.images, Tensor):
            arrays["instance_image"] = test.images[:INSTANCES]
        if model.spiking:
            maps = stage_maps if isinstance(model, Network) else layer_maps
            arrays |= {f"sam_{name}": found.transpose(0, 1) for name, found in maps(model, first)}
        elif isinstance(model, Network):
            with torch.enable_grad():
                arrays["cam"] = class_activation_map(model, first)
        if teacher is not None:
            part = x.split(MATRIX, x.dim() - 4)[0]
            with self._autocast():
                features, targets = model.features(part)[0], teacher.features(part)[0]
            students, teachers = SelfAttentiveCalibration.similarities(features, targets)
            arrays |= {"similarity_student": students, "similarity_teacher": teachers}
            arrays["similarity_label"] = test.labels[: students.shape[-1]]
        return {n: a.cpu().numpy() if isinstance(a, Tensor) else a for n, a in arrays.items()}


def stage_maps(model: Network, x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Spike activation maps ``(T, B, H, W)`` of the candidate layers; in pre-activation networks of the last alone."""
    for name in model.tap_names:
        if name == model.tap_names[-1] or not isinstance(model.stages[name][-1].neuron, nn.Identity):
            yield name, spike_activation_map(model, x, layer=name)


def layer_maps(model: nn.Module, x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The same of a network of one's own, for those of its candidate layers that are spikes."""
    for name, found in zip(model.tap_names, model.features(x)[0], strict=True):
        if ((found == 0) | (found == found.max())).all():
            yield name, contribution_map((found != 0).to(found.dtype))
