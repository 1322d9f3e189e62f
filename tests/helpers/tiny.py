"""The smallest run that goes through everything: less than a second on one core.

Two batches an epoch, and nine of the 360 test images: at this size a batch costs the same however large it is.
"""

TINY = dict(epochs=2, teacher_epochs=1, batch_size=40, train_subset=80, image_size=8, width=1 / 16)
TINY |= dict(stm_batches=2, probe_batches=1)
TINY_SETTINGS = [f"{name}={value}" for name, value in TINY.items()]
