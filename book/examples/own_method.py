"""A distillation method of one's own, compared with KD on the bundled digits."""

import torch.nn.functional as F

import sastc


class LogitMSE(sastc.Method):
    """The student's logits become the teacher's: their squared difference beside the cross-entropy."""

    label = "Logit MSE"
    needs = ("teacher_logits",)
    alpha: float = sastc.option(0.1, "weight of the squared difference", low=0)

    def losses(self, batch):
        """The loss, and the part of it that is recorded."""
        mse = F.mse_loss(batch.logits.float(), batch.teacher_logits.float())
        return {"logit_mse": mse, "loss": batch.cross_entropy + self.alpha * mse}


if __name__ == "__main__":
    config = sastc.RunConfig(student="vgg11", teacher="resnet19", epochs=2, teacher_epochs=4)
    for method in ("kd", LogitMSE, LogitMSE(alpha=1.0)):
        run = sastc.run(config.replace(method=method), progress=False)
        print(f"{run.name}  {run.metrics['accuracy']:.1f} %")
