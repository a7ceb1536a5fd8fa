"""Convolutional nets of one shape as one model.

S students, N rows, C channels of height H and width W; F of them in a row before the head.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from softlabels.models.specs import by_pixel, is_pooled, pooled
from softlabels.students.stack.layers import Stacked

# What a layer gives to the students that are run at once. More of it leaves a CPU's fast memory
# between two layers, and the backward pass finds none of it there: see "Convolutional students
# together" in benchmarks/RESULTS.md.
AT_ONCE_BYTES = 6 << 20
NUMBER_BYTES = 4


class StackedCNN(Stacked):
    """The first convolution, whose inputs all share, has the filters of all; the others are grouped
    by student."""

    def parts(self, inputs: Tensor) -> list[slice]:
        """As many as have no more than AT_ONCE_BYTES in a layer, one at least."""
        height, width = inputs.shape[-2:]
        largest = 0
        for weight_SOCHW in self.parameters[:-2:2]:
            largest = max(largest, weight_SOCHW.shape[1] * height * width)
            if is_pooled(height, width):
                height, width = height // 2, width // 2
        size = max(1, AT_ONCE_BYTES // (NUMBER_BYTES * len(inputs) * largest))
        return [slice(start, start + size) for start in range(0, len(self), size)]

    def logits(
        self, inputs: Tensor, parameters: Sequence[Tensor], part: slice, training: bool
    ) -> Tensor:
        x_NCHW, groups, students = inputs, 1, len(parameters[0])
        if training and any(self.input_dropout):
            kept_SNCHW = self._kept(self.input_dropout, part, inputs.shape)
            x_NCHW, groups = (inputs * kept_SNCHW).transpose(0, 1).flatten(1, 2), students
        for weight_SOCHW, bias_SO in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
            weight, bias = weight_SOCHW.flatten(0, 1), bias_SO.flatten()
            x_NCHW = pooled(conv2d(by_pixel(x_NCHW), weight, bias, padding=1, groups=groups))
            groups = students
        x_SNF = x_NCHW.unflatten(1, (students, -1)).transpose(0, 1).flatten(2)
        if training and any(self.dropout):
            x_SNF = x_SNF * self._kept(self.dropout, part, x_SNF.shape[1:]).to(x_SNF.dtype)
        weight_SOF, bias_SO = parameters[-2:]
        return torch.baddbmm(bias_SO[:, None], x_SNF, weight_SOF.transpose(1, 2))
