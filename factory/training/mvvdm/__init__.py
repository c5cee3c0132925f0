"""Distributed training of MV-VDM, the multi-view video diffusion model."""
