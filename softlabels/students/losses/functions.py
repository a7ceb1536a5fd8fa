"""The losses of distillation, each a function: means over scored positions, in nats.

N rows; M scored positions of them, for a classifier as many; C classes; S students at once. In the
formulas z are the teacher's logits and s the student's, q = softmax(z/T) and p = softmax(s/T).
"""

from torch import Tensor

from softlabels.logits import Logits
from softlabels.soft_targets import Temperature
from softlabels.students.losses.blending import blend
from softlabels.students.losses.decoupled import Decoupled
from softlabels.students.losses.divergences import ForwardKL, JensenShannon, ReverseKL
from softlabels.students.losses.matching import LogitMatching, Standardised
from softlabels.students.losses.relations import Relations


def kd_loss(
    student_logits_MC: Tensor,
    teacher_logits: Logits | Tensor,
    labels_M: Tensor | None = None,
    *,
    T: Temperature,
    alpha: float | Tensor,
    partner_labels: Tensor | None = None,
    mix_weight: Tensor | None = None,
) -> Tensor:
    """α·T²·KL(teacher ‖ student, both at T) + (1−α)·CE(labels, student at 1): a scalar.

    Hinton, Vinyals, Dean 2015, section 2: gradients of the soft part scale as 1/T², so T² keeps
    the two parts' shares when T changes. Positions with label −1 have no hard part. With α = 1
    labels are not needed. float32 inside, whatever the logits' dtype; above T = 32, where T²
    makes much of float32's rounding, float64 for targets that are dense. Of no positions it is 0.
    Of a multi-label teacher's `targets`, KL and cross-entropy are sums over labels.

    student_logits: [M, C], or [S, M, C] of S students, whose losses are then [S].
    teacher_logits: a batch's `targets`, or raw logits [M, C] of classes of which one is right;
    those of a multi-label teacher are given as `targets` or `DenseLogits(logits, link="sigmoid")`.
    The first 64 rows of a tensor are checked for probabilities, percent, sigmoids and votes, which
    waits for an accelerator; `targets` and `DenseLogits` are not checked.
    labels: int64 or another whole dtype [M], below 0 for none, such as −1, or −100 in transformers;
    of a multi-label teacher 0 and 1 [M, C] in any dtype, below 0 for unknown. Their values are
    checked on the CPU alone, since an accelerator would be waited for.
    T: a number, or one for each position [M], or for each student [S, 1].
    alpha: a number from 0 to 1, or one for each student [S].
    partner_labels, mix_weight: of inputs mixed by mixup or cutmix, a batch's `partner_label`, as
    labels, and `mix_weight`, float32 [M]: the hard part is then w·CE(labels) + (1−w)·CE(partners').

    Raises UsageError for T ≤ 0 or not finite, α outside [0, 1], α < 1 without labels, one of
    partner_labels and mix_weight without the other, labels or weights of another kind or shape, and
    another number of classes or positions; LogitsError for probabilities in the place of the
    teacher's logits.
    """
    return blend(
        ForwardKL(), student_logits_MC, teacher_logits, labels_M, T=T, alpha=alpha,
        partner_labels=partner_labels, mix_weight=mix_weight,
    )  # fmt: skip


def reverse_kl_loss(
    student_logits_MC: Tensor,
    teacher_logits: Logits | Tensor,
    labels_M: Tensor | None = None,
    *,
    T: Temperature,
    alpha: float | Tensor,
    partner_labels: Tensor | None = None,
    mix_weight: Tensor | None = None,
) -> Tensor:
    """α·T²·KL(student ‖ teacher, both at T) + (1−α)·CE: a scalar, or [S].

    KL(p ‖ q) = Σ p·(log p − log q), which a student makes small by leaving out what it can't learn
    of the teacher: Gu et al. 2024, "MiniLLM", section 2. T² as in `kd_loss`, whose limit at a high
    T it shares. It needs probabilities, all above 0. Of a multi-label teacher's `targets` it is a
    sum over labels. Arguments and errors are those of `kd_loss`; a UsageError too for targets
    without probabilities.
    """
    return blend(
        ReverseKL(), student_logits_MC, teacher_logits, labels_M, T=T, alpha=alpha,
        partner_labels=partner_labels, mix_weight=mix_weight,
    )  # fmt: skip


def js_loss(
    student_logits_MC: Tensor,
    teacher_logits: Logits | Tensor,
    labels_M: Tensor | None = None,
    *,
    T: Temperature,
    alpha: float | Tensor,
    beta: float = 0.5,
    partner_labels: Tensor | None = None,
    mix_weight: Tensor | None = None,
) -> Tensor:
    """α·T²·[β·KL(q ‖ m) + (1−β)·KL(p ‖ m)] + (1−α)·CE with m = β·q + (1−β)·p: a scalar, or [S].

    The Jensen–Shannon divergence for β = ½ (Lin 1991), at most log 2 a position; the generalised
    one of Agarwal et al. 2024, "On-policy distillation of language models", section 2. T² as in
    `kd_loss`; at a high T it is β·(1−β) times that loss. It needs probabilities. Of a multi-label
    teacher's `targets` it is a sum over labels.

    beta: between 0 and 1. Divided by β, it nears KL(q ‖ p) for β → 0; by 1−β, KL(p ‖ q) for β → 1.
    Other arguments and errors are those of `reverse_kl_loss`, but probabilities may be 0.
    """
    return blend(
        JensenShannon(beta), student_logits_MC, teacher_logits, labels_M, T=T, alpha=alpha,
        partner_labels=partner_labels, mix_weight=mix_weight,
    )  # fmt: skip


def mse_loss(
    student_logits_MC: Tensor,
    teacher_logits: Logits | Tensor,
    labels_M: Tensor | None = None,
    *,
    alpha: float | Tensor,
    partner_labels: Tensor | None = None,
    mix_weight: Tensor | None = None,
) -> Tensor:
    """α·Σ_i (s_i − z_i − mean(s − z))² / 2C + (1−α)·CE: a scalar, or [S].

    Matching logits: the limit of `kd_loss` for T → ∞, by Hinton, Vinyals, Dean 2015, section 2.1,
    where logits have the mean 0; here their means are taken away, since they say nothing. Half of
    torch's `mse_loss` of such logits. Its gradient is that of T²·KL, so there is no T. It needs all
    raw logits. Of a multi-label teacher's `targets` it is the limit of that KL, Σ_i (s_i − z_i)²/8,
    where means count.

    Arguments and errors are those of `kd_loss`; a UsageError too for targets that are not dense.
    """
    return blend(
        LogitMatching(), student_logits_MC, teacher_logits, labels_M, T=1.0, alpha=alpha,
        partner_labels=partner_labels, mix_weight=mix_weight,
    )  # fmt: skip


def dkd_loss(
    student_logits_MC: Tensor,
    teacher_logits: Logits | Tensor,
    labels_M: Tensor | None = None,
    *,
    T: Temperature,
    alpha: float | Tensor,
    target: float = 1.0,
    others: float = 8.0,
    partner_labels: Tensor | None = None,
    mix_weight: Tensor | None = None,
) -> Tensor:
    """α·T²·(target·TCKD + others·NCKD) + (1−α)·CE: a scalar, or [S].

    Decoupled knowledge distillation, Zhao et al. 2022, section 3, whose α and β are `target` and
    `others`. With c the label's class, TCKD is KL between (q_c, 1 − q_c) and (p_c, 1 − p_c), and
    NCKD is KL between q_i/(1 − q_c) and p_i/(1 − p_c), i ≠ c. KL itself is TCKD + (1 − q_c)·NCKD: a
    teacher that is sure hides what it knows of the others, and a constant weight brings it out. T²
    as in `kd_loss`. It needs probabilities, and labels also with α = 1. A position with label −1
    has no class to take apart, and has KL itself. Mixed inputs have w·loss(labels) +
    (1−w)·loss(partners').

    target, others: 0 or more; the authors take 1 for target, and others by teacher and student.
    Other arguments and errors are those of `kd_loss`; a UsageError too for a multi-label teacher,
    whose labels have no others, and for targets without probabilities.
    """
    return blend(
        Decoupled(target, others), student_logits_MC, teacher_logits, labels_M, T=T, alpha=alpha,
        partner_labels=partner_labels, mix_weight=mix_weight,
    )  # fmt: skip


def dist_loss(
    student_logits_MC: Tensor,
    teacher_logits: Logits | Tensor,
    labels_M: Tensor | None = None,
    *,
    T: Temperature,
    alpha: float | Tensor,
    inter: float = 1.0,
    intra: float = 1.0,
    partner_labels: Tensor | None = None,
    mix_weight: Tensor | None = None,
) -> Tensor:
    """α·[inter·mean over rows of 1 − ρ + intra·mean over classes of 1 − ρ] + (1−α)·CE.

    DIST, Huang et al. 2022, "Knowledge distillation from a stronger teacher", whose β and γ are
    `inter` and `intra`: ρ is Pearson's correlation of q and p: of what teacher and student give to
    the classes of a row, and of what they give to a class in the rows of the batch. The result is a
    scalar, or [S]. It has no unit and no T²: a correlation does not shrink as T rises, so its
    gradient doesn't either. The authors' code multiplies by T², which inter = intra = T² gives
    here. It needs probabilities, and for intra two rows in a batch; the rows that it compares are
    those of a call, so each process and each part of an accumulated step has its own. Of a
    multi-label teacher q and p are sigmoids, as in the authors' code. Of values that are all alike
    but for float32's rounding, or to 1e-8, ρ is 0: they are not divided by their deviation, so
    that the gradient is as large as elsewhere.

    inter, intra: 0 or more. Other arguments and errors are those of `kd_loss`; a UsageError too for
    targets without probabilities.
    """
    return blend(
        Relations(inter, intra), student_logits_MC, teacher_logits, labels_M, T=T, alpha=alpha,
        partner_labels=partner_labels, mix_weight=mix_weight,
    )  # fmt: skip


def standardised_kd_loss(
    student_logits_MC: Tensor,
    teacher_logits: Logits | Tensor,
    labels_M: Tensor | None = None,
    *,
    T: Temperature,
    alpha: float | Tensor,
    partner_labels: Tensor | None = None,
    mix_weight: Tensor | None = None,
) -> Tensor:
    """`kd_loss` whose soft part has (z − mean z)/std z and (s − mean s)/std s for z and s.

    Logit standardisation, Sun et al. 2024: the student learns which classes are near each other,
    and its logits may be as large as it likes; the hard part, which takes them as they are, says
    how large. Means and deviations are over a position's classes, the deviation with C − 1 as in
    the authors' code. Their deviation is 1 then, so T is smaller: 2 in the paper. T² as in
    `kd_loss`; the gradient is that of standardised logits, divided by the student's deviation, but
    where its logits are all alike but for float32's rounding, as those of a head of zeros. It needs
    all raw logits. `find_loss("standardise|dkd(1, 8)")` does it for other losses.

    Arguments and errors are those of `kd_loss`; a UsageError too for targets that are not dense,
    and for a multi-label teacher, whose logits say by their level what is there.
    """
    return blend(
        Standardised(ForwardKL()), student_logits_MC, teacher_logits, labels_M, T=T, alpha=alpha,
        partner_labels=partner_labels, mix_weight=mix_weight,
    )  # fmt: skip
