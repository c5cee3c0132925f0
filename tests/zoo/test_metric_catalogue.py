"""The catalogue of metrics: complete, and the same in docs/metrics.md."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from zoo import metrics
from zoo.metrics import catalogue

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
# Public functions that are parts of metrics, or about them.
PARTS = {
    "align", "align_first", "chamfer_distance", "find_weights", "flow_between_frames", "foreground_mask",
    "frechet_distance", "intersection_and_union", "metric", "nearest_neighbours", "optical_flow", "psnr_from_mse",
    "raft_flow", "sample_surface", "weight_hashes",
}  # fmt: skip


def test_the_page_has_the_tables_of_the_code(tmp_path):
    """If this fails: `zoo.metrics.catalogue.write_tables(Path("docs/metrics.md"))`."""
    assert catalogue.markdown_tables() in PAGE.read_text("utf-8")
    copy = tmp_path / "metrics.md"
    shutil.copy(PAGE, copy)
    catalogue.write_tables(copy)
    assert copy.read_text("utf-8") == PAGE.read_text("utf-8")


def test_every_public_metric_is_in_the_catalogue():
    functions = {name for name in metrics.__all__ if inspect.isfunction(getattr(metrics, name))}
    assert functions == set(metrics.METRICS) | PARTS
    for name, entry in metrics.METRICS.items():
        assert entry.function is getattr(metrics, name) and entry.function.__doc__
        assert (
            entry.better in ("higher", "lower", "neither") and entry.formula and entry.range and entry.source
        )
        assert "|" not in entry.formula + entry.source  # ends a cell of the table


def test_metrics_with_weights_take_a_folder_and_name_published_files():
    for entry in metrics.METRICS.values():
        assert ("weights" in inspect.signature(entry.function).parameters) == bool(entry.needs)
        assert set(entry.needs) <= set(metrics.BACKBONES)
    assert {name for entry in metrics.METRICS.values() for name in entry.needs} == set(metrics.BACKBONES)
    for file in metrics.BACKBONES.values():
        assert re.fullmatch("[0-9a-f]{8}|[0-9a-f]{64}", file.sha256)
        assert file.url.startswith("https://") and file.url.endswith(Path(file.file).name)
        if len(file.sha256) == 8:
            assert file.sha256 in file.file  # PyTorch's convention
    assert len({file.file for file in metrics.BACKBONES.values()}) == len(metrics.BACKBONES)


@pytest.mark.parametrize("name", [name for name, entry in metrics.METRICS.items() if entry.needs])
def test_without_weights_each_states_file_hash_source_and_licence(name, tmp_path):
    with pytest.raises(metrics.NotComputed) as error:
        metrics.metric(name).hashes(tmp_path)
    file = metrics.BACKBONES[metrics.metric(name).needs[0]]
    assert str(error.value).startswith(f"not computed: needs {file.file} (sha256 {file.sha256}")
    assert f" from {file.url} (licence: {file.licence}); " in str(error.value)


def test_importing_the_metrics_imports_no_network():
    """Neither the libraries of the networks nor scipy, before a metric needs them."""
    heavy = {"transformers", "torchvision", "lpips", "scipy", "huggingface_hub", "trimesh"}
    code = f"import sys, zoo.metrics; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
