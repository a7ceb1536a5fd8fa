"""ResNets with random weights, for benchmarks: no library of models is needed."""

from torch import Tensor, nn
from torch.nn.functional import relu

CLASSES = 1000


class Block(nn.Module):
    """He et al. 2015, "Deep Residual Learning", figure 5: two 3×3 convolutions, or a bottleneck."""

    def __init__(self, inner: int, before: int, after: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        steps = [(before, inner, 1, 1), (inner, inner, 3, stride), (inner, after, 1, 1)]
        if not bottleneck:
            steps = [(before, inner, 3, stride), (inner, after, 3, 1)]
        self.steps = nn.ModuleList(normed(*step) for step in steps)
        same = stride == 1 and before == after
        self.short = nn.Identity() if same else normed(before, after, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for step in self.steps[:-1]:
            out = relu(step(out))
        return relu(self.steps[-1](out) + self.short(x))


def normed(before: int, after: int, size: int, stride: int) -> nn.Module:
    convolution = nn.Conv2d(before, after, size, stride, size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after))


def resnet(counts: list[int], width: int, bottleneck: bool) -> nn.Module:
    wider = 4 if bottleneck else 1
    layers: list[nn.Module] = [normed(3, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    before = width
    for stage, count in enumerate(counts):
        inner = width << stage
        for number in range(count):
            stride = 2 if stage and number == 0 else 1
            layers.append(Block(inner, before, inner * wider, stride, bottleneck))
            before = inner * wider
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, CLASSES))


def resnet50() -> nn.Module:
    return resnet([3, 4, 6, 3], 64, True)


def resnet18() -> nn.Module:
    return resnet([2, 2, 2, 2], 64, False)


def tiny() -> nn.Module:
    """To try a benchmark on a CPU."""
    return resnet([1, 1], 8, True)
