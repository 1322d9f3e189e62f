"""Training: ``run(config)`` trains a student or a teacher, or returns the recorded result.

:mod:`~sastc.train.start` decides what has to be trained, :mod:`~sastc.train.trainer` has the loop over epochs,
:mod:`~sastc.train.step` one update, :mod:`~sastc.train.recorder` the files, and :mod:`~sastc.train.teacher` finds the
teacher of a student.
"""

from sastc.build import load_model as load_model
from sastc.records import Run as Run
from sastc.records import RunError as RunError
from sastc.train.start import run as run
from sastc.train.step import Step as Step
from sastc.train.step import networks as networks
from sastc.train.trainer import ENERGY_IMAGES as ENERGY_IMAGES
from sastc.train.trainer import Trainer as Trainer
