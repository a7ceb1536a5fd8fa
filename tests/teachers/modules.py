"""Teachers for vectors of 6 and 3 classes, each with its own way of being hard to believe."""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn


class Layered(nn.Module):
    """A hidden layer with something between; logits of a few units."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first, self.between, self.last = nn.Linear(6, 16), between, nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return 4 * self.last(self.between(self.first(x)))


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class FunctionalDropout(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(nn.functional.dropout(x, 0.3, training=True))


class Bernoulli(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * torch.bernoulli(torch.full_like(x[:, :1], 0.5))


class Noisy(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + 0.1 * torch.rand_like(x[:, :3])


class Counting(Plain):
    """It keeps something between calls."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.layer(x) + self.calls * torch.arange(3) * 0.1


class OverBatch(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.layer(x), 0)


class Centred(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x - x.mean(0))


class Scaled(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x / x.max())


class Summing(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).cumsum(0)


class Sorting(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).sort(0).values


class Numbered(Plain):
    """A row's place is added to it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + torch.arange(x.shape[0])[:, None] * torch.tensor([0.0, 0.01, 0.02])


class Stubborn(Layered):
    """Monte Carlo dropout: eval() does nothing."""

    def __init__(self) -> None:
        super().__init__(nn.Dropout(0.5))

    def eval(self) -> "Stubborn":
        return self


def trace(module: nn.Module, path: Path, rows: int = 4, dtype: torch.dtype = torch.float32) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inputs = torch.randn(rows, 6).to(dtype)
        torch.jit.trace(module, inputs, check_trace=False, strict=False).save(str(path))
    return str(path)


class InPlace(Plain):
    """It works on its inputs in place, as many normalizations do."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.sub_(0.5).div_(0.25))


class OwnBuffer(Plain):
    """It gives the same memory each time, as CUDA graphs do."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("buffer", torch.zeros(100, 3), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.buffer[: len(x)]
        return out.copy_(self.layer(x))


class Coin(Plain):
    """A layer is left out for the whole batch, every fourth time."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * (torch.rand(1) < 0.75)
