"""How a model is trained."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How a model is trained, whatever the loss: the options of these names."""

    epochs: int
    batch_size: int
    lr: float
    warmup: float
    weight_decay: float
    dropout: float
    input_dropout: float
    max_norm: float | None
    clip_norm: float | None
    accumulate: int
    ema: float | None
    rows: int | None
    holdout: float
    patience: int | None
    seed: int
    data_seed: int
    precision: str
    compile: bool

    @property
    def remedy(self) -> str:
        """What to try where the loss becomes NaN or infinite."""
        if self.lr * self.weight_decay >= 1:  # AdamW multiplies weights by 1 − lr · weight_decay
            return (
                f"--weight-decay {self.weight_decay:g} times --lr {self.lr:g} must be well below 1"
            )
        return f"try a smaller --lr than {self.lr:g}, or a longer --warmup"
