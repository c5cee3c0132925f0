"""Composition: assets to dataset to motion videos to trained models. Every command lives here."""
