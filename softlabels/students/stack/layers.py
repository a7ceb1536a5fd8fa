"""Students of one shape as one model: perceptrons. S students, N rows, F features, O outputs of a
layer.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from softlabels.models.specs import CNN, MLP


class Stacked(ABC):
    """S students of one shape, each with parameters and dropout of its own; they are given the
    same inputs. Logits are those of each alone but for rounding.

    modules: the students, whose parameters are copied
    generators: for each, what its dropout is drawn from, on `device`. On a CPU a student that is
        alone would draw the same from a generator in the same state; other devices have kernels
        that draw otherwise.
    """

    def __init__(
        self,
        modules: Sequence[MLP | CNN],
        generators: Sequence[torch.Generator],
        device: torch.device,
    ) -> None:
        self.generators, self.device = list(generators), device
        self.dropout = [module.dropout.p for module in modules]
        self.input_dropout = [module.input_dropout.p for module in modules]
        named = [dict(module.named_parameters()) for module in modules]
        self.names = list(named[0])
        self.parameters = [
            torch.stack([one[name].detach() for one in named]).to(device) for name in self.names
        ]

    def __len__(self) -> int:
        """S."""
        return len(self.generators)

    def state_dict(self, student: int, parameters: Sequence[Tensor]) -> dict[str, Tensor]:
        """The weights of one student on the CPU, as its module names them. parameters: those of
        this model, or others of their shapes, such as an average."""
        return {
            name: values[student].detach().to("cpu", copy=True)
            for name, values in zip(self.names, parameters, strict=True)
        }

    def parts(self, inputs: Tensor) -> list[slice]:
        """The students that are best run at once on these inputs, part by part."""
        return [slice(0, len(self))]

    @abstractmethod
    def logits(
        self, inputs: Tensor, parameters: Sequence[Tensor], part: slice, training: bool
    ) -> Tensor:
        """[S, N, C] for inputs [N, …]: of the students of a part, whose parameters these are."""

    def predicted(self, inputs: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """[S, N, C] of all students, as they are after training."""
        return torch.cat(
            [
                self.logits(inputs, [values[part] for values in parameters], part, training=False)
                for part in self.parts(inputs)
            ]
        )

    def _kept(self, rates: Sequence[float], part: slice, shape: Sequence[int]) -> Tensor:
        """By what each number of [N, …] is multiplied for each student of a part, [S, N, …]: 0
        where it is dropped, else 1/(1 − rate), drawn as torch's dropout draws it."""
        own, generators = rates[part], self.generators[part]
        kept = torch.ones(len(own), *shape, device=self.device)
        for values, rate, generator in zip(kept, own, generators, strict=True):
            if rate:
                values.bernoulli_(1 - rate, generator=generator).div_(1 - rate)
        return kept


class StackedMLP(Stacked):
    """Perceptrons, linear ones too."""

    def logits(
        self, inputs: Tensor, parameters: Sequence[Tensor], part: slice, training: bool
    ) -> Tensor:
        """Between layers the rows come last, [S, O, N]: so the first layer, whose inputs all share,
        is a single product of [S·O, F] and [F, N]."""
        layers = list(zip(parameters[0::2], parameters[1::2], strict=True))
        x_FN = inputs.flatten(1).T
        hidden = None
        if training and any(self.input_dropout):
            hidden = x_FN * self._kept_columns(self.input_dropout, part, x_FN)
        for number, (weight_SOI, bias_SO) in enumerate(layers):
            bias_SO1 = bias_SO[..., None]
            if hidden is None:
                product = torch.addmm(bias_SO1.flatten(0, 1), weight_SOI.flatten(0, 1), x_FN)
                hidden = product.view(*bias_SO.shape, -1)
            else:
                hidden = torch.baddbmm(bias_SO1, weight_SOI, hidden)
            if number == len(layers) - 1:
                break
            hidden = hidden.relu()
            if training and any(self.dropout):
                hidden = hidden * self._kept_columns(self.dropout, part, hidden[0])
        assert hidden is not None, "an MLP has a layer"
        return hidden.transpose(1, 2)

    def _kept_columns(self, rates: Sequence[float], part: slice, like_ON: Tensor) -> Tensor:
        kept_SNO = self._kept(rates, part, like_ON.T.shape)
        return kept_SNO.transpose(1, 2).to(like_ON.dtype)
