"""Whether mixed rows name the partners that the data seed draws from the whole source."""

from typing import Any

import numpy as np

from softlabels.inputs.label_lists import differing
from softlabels.inputs.views.chance import counters
from softlabels.inputs.views.mixing import partners_of
from softlabels.store.reader import DumpReader


def wrong_partners(reader: DumpReader) -> list[str]:
    """A finding where rows are said to be mixed with others than the data seed draws of the whole
    source, or with others' labels."""
    plan = reader.plan
    if plan.mixing is None or len(reader.numbers) < plan.shards:
        return []
    skipped, first = reader.manifest.skipped, reader.view_rows[0]
    out = np.array([entry.row for entry in skipped], np.int64)
    numbers = np.setdiff1d(np.arange(plan.inputs), out)  # of the inputs that are there
    kind = np.str_ if plan.ids == "string" else np.int64
    others = np.array([entry.id for entry in skipped], kind)
    order = np.argsort(np.concatenate([numbers, out]))
    ids = np.concatenate([reader.ids[first], others])[order]
    wrong: list[Any] = []
    for view, rows in zip(plan.views, reader.view_rows, strict=True):
        keys = counters(reader.ids[rows])
        partners = partners_of(plan.data_seed or 0, keys, view, numbers, plan.inputs)
        wrong += reader.ids[rows][reader.partners[rows] != ids[partners]].tolist()
        if (labels := reader.partner_labels) is not None:
            places = np.full(plan.inputs, -1)
            places[numbers] = first
            of_partner = places[partners]
            there = of_partner >= 0
            assert reader.labels is not None, "partners have labels"
            differs = differing(labels[rows[there]], reader.labels[of_partner[there]])
            wrong += reader.ids[rows[there]][differs].tolist()
    if not wrong:
        return []
    return [
        f"{len(wrong):,} of {len(reader):,} rows name other partners, or other labels of these, "
        f"than the data seed {plan.data_seed} draws from the whole source, first those with id "
        f"{', '.join(map(str, wrong[:5]))}"
    ]
