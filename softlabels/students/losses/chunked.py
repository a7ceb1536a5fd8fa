"""α·T²·KL + (1−α)·CE from hidden states and a head, a chunk of positions at a time.

The gradients are computed together with the loss, so that logits live as long as their chunk does:
an idea of efficient_cross_entropy (Malek 2023) and Liger-Kernel (Hsu et al. 2024, section 3.2); Cut
Cross-Entropy (Wijmans et al. 2024) chunks the vocabulary too. That needs log Σ exp before the
gradient and so every product twice, 6 in place of 4 with a teacher's head: with chunks of positions
alone the memory is already that of the head's gradient and little more.

Shapes: M scored positions, D numbers in a hidden state, V rows of the student's head, C classes
that count, R positions of a block.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from softlabels.errors import UsageError
from softlabels.features import LinearHead
from softlabels.logits import Logits
from softlabels.soft_targets import exponentials, needs_double


@dataclass(frozen=True)
class Sizes:
    """How many logits there are at a time.

    chunk: of the student; products are quicker by many positions
    teacher: of the teacher, whole parts of a chunk
    block: of those in a chunk whose arithmetic is done at once, in three buffers. On a processor
        they fit into its cache; an accelerator wants large kernels.
    """

    chunk: int
    teacher: int
    block: int


PROCESSOR = Sizes(1 << 22, 1 << 21, 1 << 17)
ACCELERATOR = Sizes(1 << 27, 1 << 26, 1 << 24)

HEADROOM = 0.5  # of the largest number of float16, since what is summed is rounded first


@dataclass(frozen=True, eq=False)
class Task:
    """What the loss is of, besides the student.

    head: the student's
    targets: of all positions; M of them are scored, those in `scored` (int64 [M]) or all
    labels: int64 [M], −1 for none; None where alpha is 1
    with_gradients: whether the gradients of hidden states, weight and bias are asked for
    """

    head: LinearHead
    targets: Logits
    scored: Tensor | None
    labels_M: Tensor | None
    T: float
    alpha: float
    with_gradients: Sequence[bool]

    def teacher(self, size: int) -> Iterator[Logits]:
        """The targets of the scored positions, so many at a time."""
        if self.scored is None:
            return self.targets.chunks(size)
        parts = self.scored.split(size)
        return (self.targets.select(part.to(self.targets.device)) for part in parts)

    def tempered(self, targets: Logits) -> tuple[Tensor, float]:
        """Logits of these targets, and by what they are divided to be those at T, [R, C]."""
        if targets.is_dense:
            return targets.dense()[:, : self.head.classes], self.T
        log_q_RC = targets.temper(self.T).log_probs()
        lowest = torch.finfo(log_q_RC.dtype).min / 2  # since 0 · (−inf) would be NaN
        return log_q_RC.clamp_min(lowest), 1.0


class ChunkedLoss(torch.autograd.Function):
    """The mean over positions, and the gradients of it: `run` in one pass."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, task: Task
    ) -> Tensor:
        kind = _product_dtype(hidden, weight)
        with torch.autocast(hidden.device.type, enabled=False):
            loss, gradients = Pass(hidden, task, kind).run()
        ctx.dtypes = [x if x is None else x.dtype for x in (hidden, weight, bias)]
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> Any:
        """The gradients are handed over without a copy, unless the graph is kept for another
        backward. They are in the dtype of the arithmetic until here: of a loss scaled for float16
        they keep what is too small for float16 without its scale."""
        if torch.is_grad_enabled():
            raise UsageError(
                "linear_kd_loss has no gradient of its gradient, which create_graph=True asks for; "
                "use kd_loss(hidden @ head_weight.T, …)"
            )
        for_good = not _keeps_graph()
        scaled = [
            x if x is None else (x.mul_(factor) if for_good else x * factor).to(dtype)
            for x, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return *scaled, None


def _product_dtype(hidden: Tensor, weight: Tensor) -> torch.dtype:
    """That which autocast asks for, else that of both, where one is rounded less than the other
    that one."""
    kind = torch.promote_types(hidden.dtype, weight.dtype)
    if torch.is_autocast_enabled(hidden.device.type) and kind != torch.float64:
        return torch.get_autocast_dtype(hidden.device.type)
    return kind


def _keeps_graph() -> bool:
    """Whether the backward that runs keeps its graph. Torch has no public word for it; without the
    private one gradients are copied."""
    ask = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return ask is None or bool(ask())


class Pass:
    """One pass over all positions: products in the dtype `kind`, gradients in float32, or
    float64; logits and losses too, but at a high T in float64."""

    def __init__(self, hidden_MD: Tensor, task: Task, kind: torch.dtype) -> None:
        weight_VD, device = task.head.weight_VD, hidden_MD.device
        exact = torch.float64 if kind == torch.float64 else torch.float32
        is_high = task.alpha > 0 and needs_double(task.T, device)
        self.task, self.exact = task, exact
        self.hidden_MD = hidden_MD.to(kind)
        self.weight_CD = weight_VD[: task.head.classes].to(kind)
        # bfloat16 has the range of float32, and needs no help
        self.is_narrow = torch.finfo(kind).max < torch.finfo(torch.bfloat16).max
        bias = task.head.bias_V
        self.bias_C = bias if bias is None else bias[: task.head.classes].to(exact)
        sizes, classes = PROCESSOR if device.type == "cpu" else ACCELERATOR, task.head.classes
        count = max(1, len(hidden_MD))
        self.block = min(max(1, sizes.block // classes), count)
        self.teachers = min(max(1, sizes.teacher // classes), count)
        self.chunk = min(sizes.chunk // sizes.teacher * self.teachers, count)
        new: Any = {"dtype": torch.float64 if is_high else exact, "device": device}
        self.student_MC = torch.empty(self.chunk, classes, **new)
        self.spare = torch.empty(3, self.block, classes, **new)
        self.losses_M = torch.zeros(len(hidden_MD), **new)
        shapes = (hidden_MD.shape, weight_VD.shape, (len(weight_VD),))
        self.gradients = [
            torch.zeros(shape, dtype=exact, device=device) if has_gradient else None
            for has_gradient, shape in zip(task.with_gradients, shapes, strict=True)
        ]

    def run(self) -> tuple[Tensor, list[Tensor | None]]:
        count = len(self.hidden_MD)
        teacher = self.task.teacher(self.teachers) if self.task.alpha > 0 else iter(())
        for start in range(0, count, self.chunk):
            part = slice(start, min(start + self.chunk, count))
            student = self._logits(self.hidden_MD[part])
            self._losses(student, teacher, part)
            if any(self.task.with_gradients):
                self._add_gradients(student, part)
        return (self.losses_M.sum() / max(count, 1)).to(self.exact), self.gradients

    def _logits(self, hidden_RD: Tensor) -> Tensor:
        """The student's, before T."""
        out = self.student_MC[: len(hidden_RD)]
        if hidden_RD.dtype == out.dtype:
            torch.mm(hidden_RD, self.weight_CD.T, out=out)
        else:
            out.copy_(hidden_RD @ self.weight_CD.T)
        if self.bias_C is not None:
            out += self.bias_C
        return self.task.head.capped(out)

    def _losses(self, student_RC: Tensor, teacher: Iterator[Logits], part: slice) -> None:
        """The losses of a chunk; its logits become their gradient, not yet divided by M."""
        for start in range(0, len(student_RC), self.teachers):
            rows = slice(start, start + self.teachers)
            targets = next(teacher, None)
            tempered = None if targets is None else self.task.tempered(targets)
            self._blocks(student_RC[rows], tempered, slice(part.start + start, part.stop))
            del tempered  # before the next ones are made

    def _blocks(
        self, student_RC: Tensor, tempered: tuple[Tensor, float] | None, part: slice
    ) -> None:
        labels_M, losses_M = self.task.labels_M, self.losses_M[part]
        for start in range(0, len(student_RC), self.block):
            rows = slice(start, min(start + self.block, len(student_RC)))
            x, q, p = self.spare[:, : rows.stop - rows.start]
            teacher_T = 1.0
            if tempered is not None:
                teacher_RC, teacher_T = tempered
                x.copy_(teacher_RC[rows])
            labels = None if labels_M is None else labels_M[part][rows]
            losses_M[rows] = self._block(student_RC[rows], x, teacher_T, labels, q, p)

    def _block(
        self,
        s: Tensor,
        x: Tensor,
        teacher_T: float,
        labels_R: Tensor | None,
        q: Tensor,
        p: Tensor,
    ) -> Tensor:
        """The losses of R positions. s: the student's logits; x: the teacher's, which are divided
        by teacher_T to be those at T; q and p: spare memory.

        With q and p of teacher and student at T and p₁ of the student at 1, the gradient over the
        student's logits is α·T·(p − q) + (1−α)·(p₁ − label). It takes their place. No softmax is
        divided by its sum: the factors in front of them are.
        """
        task, cap = self.task, self.task.head.soft_cap
        soft, T = (task.alpha, task.T) if task.alpha else (0.0, 1.0)
        total_p, lse_p = exponentials(s, T, p)
        of_p: float | Tensor = soft * T
        loss_R1 = torch.zeros_like(lse_p)
        if soft:
            total_q, lse_q = exponentials(x, teacher_T, q)
            apart_RC = x.sub_(s) if teacher_T == T else x.sub_(s, alpha=1 / T)
            dot_R1 = torch.linalg.vecdot(q, apart_RC)[:, None] / teacher_T
            loss_R1 += soft * T**2 * (dot_R1 / total_q - lse_q + lse_p)
        if labels_R is not None:
            index_R1 = labels_R.clamp_min(0)[:, None]
            hard_R1 = (1 - soft) * (labels_R >= 0)[:, None].to(s)
            chosen_R1 = s.gather(-1, index_R1)
            if T == 1:
                of_p, lse_1 = of_p + hard_R1, lse_p
            else:
                total_1, lse_1 = exponentials(s, 1, x)
            loss_R1 += hard_R1 * (lse_1 - chosen_R1)
        gradient = torch.mul(p, of_p / total_p, out=s if cap is None else p)
        if soft:
            gradient.addcmul_(q, -soft * T / total_q)
        if labels_R is not None:
            if T != 1:
                gradient.addcmul_(x, hard_R1 / total_1)
            gradient.scatter_add_(-1, index_R1, -hard_R1)
        if cap is not None:  # tanh' = 1 − tanh²
            gradient.addcmul_(gradient, s.div_(cap).square_(), value=-1)
            s.copy_(gradient)
        return loss_R1[:, 0]

    def _add_gradients(self, gradient_RC: Tensor, part: slice) -> None:
        """From the gradient over logits, before the head's scale and the mean."""
        of_hidden, of_weight, of_bias = self.gradients
        share, classes = self.task.head.scale / len(self.hidden_MD), self.task.head.classes
        hidden_RD, gradient_RC = self.hidden_MD[part], gradient_RC.to(self.exact)
        if of_bias is not None:
            of_bias[:classes].add_(gradient_RC.sum(0), alpha=share)
        if hidden_RD.dtype == self.exact:
            if of_hidden is not None:
                torch.mm(gradient_RC, self.weight_CD, out=of_hidden[part]).mul_(share)
            if of_weight is not None:
                of_weight[:classes].addmm_(gradient_RC.T, hidden_RD, alpha=share)
            return
        if of_hidden is not None:
            given_RC, by_R1 = self._fitted(gradient_RC, -1, self.weight_CD)
            of_hidden[part] = given_RC @ self.weight_CD
            of_hidden[part].mul_(share if by_R1 is None else share / by_R1)
        if of_weight is not None:
            given_RC, by_1C = self._fitted(gradient_RC, 0, hidden_RD)
            product_CD = given_RC.T @ hidden_RD
            if by_1C is None:
                of_weight[:classes].add_(product_CD, alpha=share)
            else:
                of_weight[:classes].addcmul_(product_CD, share / by_1C.T)

    def _fitted(
        self, gradient_RC: Tensor, over: int, other: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """The gradient in the dtype of products, and by what it was multiplied to fit float16.

        It is summed over `over` times numbers of `other`. No partial sum is above Σ |gradient| ·
        max |other|: each row, or column, is multiplied so that this is near float16's largest
        number. So no sum overflows, and what is lost is below about 1e-12 of that bound: a class
        that is rare, or nearly learned, keeps its gradient.
        """
        if not self.is_narrow:
            return gradient_RC.to(other.dtype), None
        size = torch.linalg.vector_norm(gradient_RC, 1, over, keepdim=True)
        size.clamp_min_(torch.finfo(self.exact).tiny ** 0.5)  # so that no quotient overflows
        # the factors themselves have to fit too, however small those of `other` are
        largest = torch.linalg.vector_norm(other, torch.inf).to(self.exact).clamp_min(1)
        by = HEADROOM * torch.finfo(other.dtype).max / (size * largest)
        return (gradient_RC * by).to(other.dtype), by
