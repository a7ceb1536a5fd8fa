"""In which precision a teacher's matrix work runs, whatever the program around it has set."""

import pytest
import torch
from torch import Tensor, nn

from softlabels.errors import UsageError
from softlabels.system.devices import autocast, tf32
from softlabels.teachers.teacher import Teacher

CPU = torch.device("cpu")


class Watching(nn.Module):
    """Notes torch's switches while it runs, as a model that reads them would."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = (
            torch.backends.cuda.matmul.allow_tf32,
            torch.backends.cudnn.conv.fp32_precision == "tf32",
            torch.backends.cudnn.rnn.fp32_precision == "tf32",
        )
        return x


@pytest.fixture(autouse=True)
def switches():
    yield
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_tf32 = False


def older() -> tuple:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("matmul", [False, True])
@pytest.mark.parametrize("convolutions", [False, True])
def test_a_teacher_in_float32_never_runs_in_tf32(matmul, convolutions):
    torch.backends.cuda.matmul.allow_tf32 = matmul
    torch.backends.cudnn.allow_tf32 = convolutions
    module = Watching()
    Teacher(name="t", kind="pickle", fingerprint="", module=module).logits(torch.zeros(2, 3))
    assert module.seen == (False, False, False)
    assert older() == (matmul, convolutions)
    with tf32(True):
        module(torch.zeros(1))
    assert module.seen == (True, True, True)
    assert older() == (matmul, convolutions)


def test_so_too_where_a_program_set_the_finer_switches():
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # torch no longer reads the older ones
    module = nn.Identity()
    seen = []
    module.register_forward_hook(
        lambda *_: seen.append((torch.backends.cudnn.conv.fp32_precision,
                                torch.backends.cudnn.rnn.fp32_precision))
    )  # fmt: skip
    Teacher(name="t", kind="pickle", fingerprint="", module=module).logits(torch.zeros(2, 3))
    assert seen == [("ieee", "ieee")]
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"
    assert torch.backends.cudnn.rnn.fp32_precision == "tf32"


@pytest.mark.parametrize("precision", ["tf32", "fp16"])
def test_what_only_cuda_has_is_refused_elsewhere(precision):
    with pytest.raises(UsageError, match=f"--precision {precision} needs CUDA and this is cpu"):
        autocast(CPU, precision)


def test_another_word_is_refused_with_those_that_there_are():
    with pytest.raises(UsageError, match="'half'; use one of float32, tf32, bf16, fp16"):
        autocast(CPU, "half")
