"""Generated files that present a dataset: card, contact sheet, preview videos and histograms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.lazy import lazy_names

if TYPE_CHECKING:
    from factory.dataset.pages.card import card_files, column_table, modality_table, write_card
    from factory.dataset.pages.contact_sheet import write_contact_sheet
    from factory.dataset.pages.histograms import draw_histogram
    from factory.dataset.pages.preview import write_preview

__all__ = [
    "card_files",
    "column_table",
    "draw_histogram",
    "modality_table",
    "write_card",
    "write_contact_sheet",
    "write_preview",
]
_MODULES = {
    "card_files": "factory.dataset.pages.card",
    "column_table": "factory.dataset.pages.card",
    "modality_table": "factory.dataset.pages.card",
    "write_card": "factory.dataset.pages.card",
    "write_contact_sheet": "factory.dataset.pages.contact_sheet",
    "draw_histogram": "factory.dataset.pages.histograms",
    "write_preview": "factory.dataset.pages.preview",
}

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
