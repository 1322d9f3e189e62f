"""One file a distillation method."""
