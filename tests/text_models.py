"""Classifiers of texts, small, with a tokenizer that is trained on the spot."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers")
WORDS = [
    "garlic",
    "bread",
    "salt",
    "oil",
    "basil",
    "good",
    "bad",
    "very",
    "not",
    "and",
    "the",
    "with",
    "a",
    "of",
    "pan",
    "oven",
]
NAMES = {0: "bad", 1: "fair", 2: "good"}
LONGEST = 24


def sentences(rows: int, seed: int = 0) -> list[str]:
    """Of 1 to 18 words."""
    chance = np.random.default_rng(seed)
    return [" ".join(chance.choice(WORDS, chance.integers(1, 19))) for _ in range(rows)]


def make_tokenizer(side: str = "right", more: int = 0) -> Any:
    """Words with [CLS] and [SEP]; `more` tokens that no text has."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *[f"[{i}]" for i in range(more)]]
    trainer = trainers.WordLevelTrainer(special_tokens=special)
    tokenizer.train_from_iterator(WORDS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )  # fmt: skip
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", padding_side=side,
    )  # fmt: skip


def small(**more: Any) -> dict[str, Any]:
    shared = {"vocab_size": 24, "num_labels": 3, "id2label": NAMES, "pad_token_id": 0}
    return shared | more


ENCODER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
           "intermediate_size": 32, "max_position_embeddings": LONGEST}  # fmt: skip
CONFIGS = {
    "absolute": lambda: transformers.BertConfig(**small(**ENCODER)),
    "offset": lambda: transformers.RobertaConfig(
        **small(**ENCODER | {"max_position_embeddings": LONGEST + 1}), bos_token_id=2,
        eos_token_id=3),
    "relative": lambda: transformers.DebertaV2Config(
        **small(**ENCODER), relative_attention=True, pos_att_type=["c2p", "p2c"],
        position_biased_input=False),
    "decoder": lambda: transformers.GPT2Config(
        **small(n_embd=16, n_layer=2, n_head=2, n_positions=LONGEST), bos_token_id=2,
        eos_token_id=3),
}  # fmt: skip


def save_classifier(folder: Path, kind: str = "absolute", side: str = "right", **words: Any) -> Any:
    """A folder as save_pretrained writes it, with its tokenizer; the model, in eval mode. Its
    weights are large enough for its answers to differ."""
    config = CONFIGS[kind]()
    for name, value in words.items():
        setattr(config, name, value)
    torch.manual_seed(1)
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.mul_(8)
    model.save_pretrained(folder)
    make_tokenizer(side).save_pretrained(folder)
    return model


def alone(folder: Path, model: Any, *columns: list[str]) -> np.ndarray:
    """The logits of each text, or pair, by itself and unpadded, float32 [N, C]."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        rows = [tokenizer(*texts, return_tensors="pt") for texts in zip(*columns, strict=True)]
        known = inspect.signature(model.forward).parameters
        return np.concatenate(
            [model(**{n: v for n, v in row.items() if n in known}).logits.numpy() for row in rows]
        )


class Pooled(torch.nn.Module):
    """A sentence encoder with a head: the mean of the states of a text's tokens, then a layer."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder, self.head = encoder, torch.nn.Linear(encoder.config.hidden_size, 3)
        with torch.no_grad():
            self.head.weight.mul_(8)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        states = self.encoder(input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask[..., None].float()
        return self.head((states * weights).sum(1) / weights.sum(1))


class Plain(torch.nn.Module):
    """Without transformers: a mean of embeddings, then a layer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.embedding, self.head = torch.nn.Embedding(24, 16), torch.nn.Linear(16, classes)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        weights = attention_mask[..., None].float()
        return self.head((self.embedding(input_ids) * weights).sum(1) / weights.sum(1))


class Unmasked(Pooled):
    """The same without a mask, so that it can't tell padding from text."""

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return super().forward(input_ids, torch.ones_like(input_ids))


def make_pooled(kind: type[Pooled] = Pooled) -> Pooled:
    """The same weights each time."""
    torch.manual_seed(3)
    encoder = transformers.BertModel(CONFIGS["absolute"](), add_pooling_layer=False)
    with torch.no_grad():
        for weights in encoder.parameters():
            if weights.ndim > 1:
                weights.mul_(8)
    return kind(encoder).eval()
