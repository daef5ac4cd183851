from __future__ import annotations

import pytest
import torch

from clas_core.errors import ClasError
from clas_core.running.layout import Layout

pytestmark = pytest.mark.slow  # UMAP compiles for half a minute


@pytest.fixture(scope="module")
def points():
    generator = torch.Generator().manual_seed(0)
    centres = 3 * torch.randn(6, 1, 24, generator=generator)
    return (centres + torch.randn(6, 30, 24, generator=generator)).flatten(0, 1)


@pytest.fixture(scope="module")
def layout(points):
    return Layout.fit(points, seed=0)


def moved(layout, places, rows=slice(None)):
    """Largest and mean move, as a share of the map's span."""
    span = (layout.coordinates.amax(0) - layout.coordinates.amin(0)).max()
    distance = (places - layout.coordinates[rows]).norm(dim=1) / span
    return distance.max().item(), distance.mean().item()


@pytest.fixture(params=["fitted", "loaded"])
def either(request, layout, tmp_path):
    if request.param == "fitted":
        return layout
    layout.save(tmp_path / "layout.safetensors")
    return Layout.load(tmp_path / "layout.safetensors")


def test_loops_are_kept_compiled(layout):
    import umap.layouts
    from numba.core.dispatcher import Dispatcher

    loops = [one for one in vars(umap.layouts).values() if isinstance(one, Dispatcher)]
    assert loops
    assert all(one.stats.cache_path for one in loops)


def test_fitted_points_stay_put(either, points):
    assert moved(either, either.place(points)) == (0, 0)


def test_unchanged_points_among_moved_ones_stay_put(either, points):
    steered = points.clone()
    steered[:90] += 0.5
    largest, mean = moved(either, either.place(steered)[90:], slice(90, None))
    assert mean < 0.02
    assert largest < 0.05


def test_placing_is_repeatable_and_never_moves_the_map(either, points):
    before = either.coordinates.clone()
    first = either.place(points + 0.3)
    either.place(points * -1)
    assert torch.equal(either.place(points + 0.3), first)
    assert torch.equal(either.coordinates, before)


def test_a_loaded_layout_places_as_the_fitted_one(layout, points, tmp_path):
    layout.save(tmp_path / "layout.safetensors")
    loaded = Layout.load(tmp_path / "layout.safetensors")
    assert torch.equal(loaded.coordinates, layout.coordinates)
    assert loaded.seed == layout.seed
    assert torch.allclose(loaded.place(points + 0.3), layout.place(points + 0.3), atol=1e-4)


def test_clusters_are_seen(layout):
    groups = layout.coordinates.view(6, 30, 2)
    within = groups.std(1).mean()
    between = groups.mean(1).std(0).mean()
    assert between > 3 * within


def test_same_seed_same_map(layout, points):
    assert torch.equal(Layout.fit(points, seed=0).coordinates, layout.coordinates)


def test_errors(layout, points, tmp_path):
    with pytest.raises(ClasError, match="at least 10 sentences"):
        Layout.fit(points[:9])
    with pytest.raises(ClasError, match="size 24"):
        layout.place(torch.zeros(3, 23))
    with pytest.raises(ClasError, match="not finite"):
        layout.place(torch.full((3, 24), torch.nan))
    with pytest.raises(ClasError, match="not finite"):
        Layout.fit(torch.full((20, 24), torch.nan))
    with pytest.raises(ClasError, match="not a saved layout"):
        Layout.load(tmp_path / "nothing")
    (tmp_path / "junk").write_bytes(b"junk" * 10)
    with pytest.raises(ClasError, match="not a saved layout"):
        Layout.load(tmp_path / "junk")


def test_warm():
    Layout.warm()
