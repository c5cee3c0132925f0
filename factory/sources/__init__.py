"""Where animated models come from."""
