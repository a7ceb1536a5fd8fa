"""In: dumps from logits that other programs stored. Out: the recipes of docs/exchange.md."""

from softlabels.exchange.importing import Imported, import_logits

__all__ = ["Imported", "import_logits"]
