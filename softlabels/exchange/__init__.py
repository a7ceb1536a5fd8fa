"""In and out: dumps from logits that other programs stored, and dumps in other formats."""

from softlabels.exchange.exporting import Exported, export_dump
from softlabels.exchange.importing import Imported, import_logits

__all__ = ["Exported", "Imported", "export_dump", "import_logits"]
