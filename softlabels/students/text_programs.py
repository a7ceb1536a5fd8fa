"""A trained model of texts as a program. N rows, L positions, C classes."""

import numpy as np
import torch
from torch import Tensor, nn

from softlabels.errors import ExportError
from softlabels.inputs.preprocess import Preprocess
from softlabels.models.keywords import keywords_of
from softlabels.models.limits import limits_of, reader_in
from softlabels.models.outputs import logits_of
from softlabels.models.tokenizers import Tokenizer
from softlabels.models.tokens import IDS, KINDS, MASK
from softlabels.students.programs import Program

LENGTH = "length"
LONGEST = 24  # positions of the random rows that are compared


class TokenProgram(Program):
    """It takes input_ids, attention_mask and, where these tell it something, token_type_ids, int64
    [N, L].

    kinds: the largest of token_type_ids, see `kinds_of`
    """

    def __init__(
        self, model: nn.Module, preprocess: Preprocess, kinds: int, classes: int, title: str
    ) -> None:
        super().__init__()
        self.model, self.preprocess = model, preprocess
        self.classes, self.title = classes, title
        self.kinds = kinds
        self.names = (IDS, MASK, *([KINDS] if kinds else []))
        self.sizes = ({0: "batch", 1: LENGTH},) * len(self.names)
        reader = reader_in(model)
        known = limits_of(reader)
        if known.vocabulary is None:
            raise ExportError(
                f"{title} does not say how many tokens it knows, so it can't be tried"
            )
        self.vocabulary, self.pad = known.vocabulary, known.pad or 0
        end = getattr(getattr(reader, "config", None), "eos_token_id", None)
        self.end = end if type(end) is int and end != self.pad else None
        most = preprocess.most_tokens
        self.longest, self.largest = most, {} if most is None else {LENGTH: most}
        self.eval()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        kinds = {} if token_type_ids is None else {KINDS: token_type_ids}
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, **kinds)
        return logits_of(output, input_ids.shape[0], self.classes, self.title).float()

    def draw(self, rows: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Random tokens of several lengths, padded on the right."""
        source = torch.Generator().manual_seed(seed)
        longest = min(self.longest or LONGEST, LONGEST)
        lengths_N = torch.randint(1, longest + 1, (rows,), generator=source)
        lengths_N[0] = max(1, longest - seed % 3)
        mask_NL = (torch.arange(int(lengths_N.max())) < lengths_N[:, None]).long()
        ids_NL = torch.randint(0, self.vocabulary, mask_NL.shape, generator=source)
        if self.end is not None:  # some models want it at the end of each row, and as often in all
            ids_NL[ids_NL == self.end] = self.pad
            ids_NL[torch.arange(rows), lengths_N - 1] = self.end
        ids_NL = torch.where(mask_NL.bool(), ids_NL, self.pad)
        kinds_NL = torch.randint(0, self.kinds + 1, mask_NL.shape, generator=source) * mask_NL
        return (ids_NL, mask_NL, kinds_NL)[: len(self.names)]

    def describe_inputs(self, before: str) -> str:
        limit = "" if self.longest is None else f" with L up to {self.longest:,}"
        after = f", after {before}" if before else ""
        return f"{', '.join(self.names)}, int64 [N, L]{limit}{after}"


def kinds_of(tokenizer: Tokenizer, module: nn.Module, pairs: bool) -> int:
    """The largest of token_type_ids that the tokenizer gives texts, or pairs of them; 0, which
    models take where they are given none, where the model takes no others."""
    if not keywords_of(module).takes(KINDS):
        return 0
    tokens = tokenizer.encode([["a"]] * (2 if pairs else 1))
    return int(tokens.columns.get(KINDS, np.zeros(1)).max())
