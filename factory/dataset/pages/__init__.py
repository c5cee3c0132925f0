"""Files that describe a dataset to people: card, contact sheet, preview, histograms."""
