"""Settings of `GridEncoding`: the grids that they make, and the refusal of bad ones."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from diffhash import GridEncoding
from diffhash.ops.interpolation import INTERPOLATIONS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_input_dims", 0),
        ("n_input_dims", 5),
        ("n_levels", 0),
        ("n_levels", -3),
        ("n_levels", 2.5),
        ("n_features_per_level", 0),
        ("n_features_per_level", 1.5),
        ("log2_hashmap_size", 2),
        ("log2_hashmap_size", 31),
        ("log2_hashmap_size", 10.5),
        ("base_resolution", 0),
        ("base_resolution", 2.5),
        ("base_resolution", "8"),
        ("per_level_scale", 0.5),
        ("per_level_scale", float("nan")),
        ("per_level_scale", float("inf")),
        ("init_scale", -1e-4),
        ("init_scale", float("nan")),
    ],
)
def test_settings_out_of_range_are_named(name: str, value: Any) -> None:
    settings: dict[str, Any] = {"n_input_dims": 2} | {name: value}
    with pytest.raises(ValueError, match=rf"^{name}={value!r}"):
        GridEncoding(**settings)


def test_an_unknown_interpolation_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"interpolation='Cubic'.*linear, s1, .*cubic"):
        GridEncoding(1, interpolation="Cubic")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layout": "dense"}, r"layout='dense' is unknown; choose one of auto, nested, tcnn"),
        ({"layout": "tcnn", "interpolation": "cubic"}, "layout='tcnn' .*interpolation='cubic'"),
        ({"layout": "tcnn", "level_offset": True}, "layout='tcnn' .*level_offset=True"),
        ({"layout": "tcnn", "periodic": (1,)}, r"layout='tcnn' .*periodic=\(1,\)"),
        ({"layout": "tcnn", "n_input_dims": 1}, "layout='tcnn' .*n_input_dims=1"),
        (
            {"layout": "tcnn", "base_resolution": (4, 8)},
            r"layout='tcnn' .*base_resolution=\(4, 8\)",
        ),
        ({"base_resolution": (4, 8, 8)}, r"base_resolution=\[4, 8, 8\]: .*each of the 2 axes"),
        ({"base_resolution": ()}, r"base_resolution=\[\]: .*each of the 2 axes"),
        ({"base_resolution": (4, 0)}, "base_resolution=0: allowed are integers from 1"),
        ({"base_resolution": (4, True)}, "base_resolution=True: allowed are integers from 1"),
        ({"periodic": (2,)}, r"periodic=\(2,\): .*from 0 to 1"),
        ({"periodic": (-1,)}, r"periodic=\(-1,\)"),
        ({"periodic": (0, 0)}, r"periodic=\(0, 0\): .*each once"),
        ({"periodic": (True, False)}, r"periodic=\(True, False\)"),
        ({"periodic": 1}, "periodic=1"),
        ({"periodic": "x"}, "periodic='x'"),
        ({"periodic": (0.0,)}, r"periodic=\(0\.0,\)"),
    ],
)
def test_layouts_and_periodic_axes_that_a_grid_cannot_have(
    settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        GridEncoding(**{"n_input_dims": 2} | settings)


def test_auto_is_tiny_cuda_nns_layout_for_what_it_offers() -> None:
    def layout(name: str, n_input_dims: int = 2, **settings: Any) -> str:
        encoding = GridEncoding(n_input_dims, n_levels=2, interpolation=name, **settings)
        return encoding._settings()["layout"]

    assert layout("linear") == layout("s1") == layout("bspline_1") == "tcnn"
    assert layout("s2", layout="tcnn") == layout("hermite", layout="tcnn") == "tcnn"
    assert layout("cubic") == layout("s2") == layout("hermite") == layout("linear", 1) == "nested"
    assert layout("linear", periodic=(0,)) == layout("s1", level_offset=True) == "nested"
    assert layout("linear", layout="nested") == "nested"
    assert layout("linear", base_resolution=(4, 8)) == "nested"
    assert layout("linear", base_resolution=[8, 8]) == "tcnn"


def test_states_of_another_layout_or_period_are_refused() -> None:
    one = GridEncoding(2, n_levels=1, interpolation="s1", log2_hashmap_size=3, periodic=(0, 1))
    for other in ({"layout": "tcnn"}, {"periodic": [0]}):
        grid = GridEncoding(2, n_levels=1, interpolation="s1", log2_hashmap_size=3, **other)
        with pytest.raises(RuntimeError, match="periodic="):
            grid.load_state_dict(one.state_dict())
    same = GridEncoding(2, 1, 2, 3, interpolation="s1", periodic=(1, 0), layout="nested")
    same.load_state_dict(one.state_dict())
    torch.testing.assert_close(same.params, one.params, rtol=0, atol=0)


def test_axes_may_have_another_number_of_cells_each() -> None:
    encoding = GridEncoding(2, n_levels=2, base_resolution=(3, 8), interpolation="cubic", seed=0)
    # Cells + 3 vertices along an axis, rounded up to a multiple of 8 in all.
    assert encoding.params.numel() == 2 * (-(-6 * 11 // 8) * 8 + -(-9 * 19 // 8) * 8)
    assert "base_resolution=(3, 8)" in repr(encoding)
    # Third derivatives jump where cells end, and nowhere else: at thirds along the first axis.
    near = torch.tensor([-1e-6, 1e-6])
    for axis, cells in ((0, 6), (1, 16)):
        for at, jumps in ((1 / cells, True), (1.4 / cells, False)):
            x = torch.full((2, 2), 0.3)
            x[:, axis] = at + near
            row = ((3, 0), (0, 3))[axis]
            third = encoding.jet(x, [row])[row]
            assert ((third[0] - third[1]).abs().max() > 1e-3 * third.abs().max()) == jumps

    same = GridEncoding(2, n_levels=2, base_resolution=[3, 8], interpolation="cubic")
    same.load_state_dict(encoding.state_dict())
    other = GridEncoding(2, n_levels=2, base_resolution=(8, 3), interpolation="cubic")
    with pytest.raises(
        RuntimeError, match=r"base_resolution=\[3, 8\], here base_resolution=\[8, 3\]"
    ):
        other.load_state_dict(encoding.state_dict())


def test_dense_levels_are_counted_with_all_axes() -> None:
    settings: dict[str, Any] = {"n_levels": None, "interpolation": "cubic"}
    encoding = GridEncoding(2, base_resolution=(2, 32), log2_hashmap_size=10, **settings)
    # 5 · 35 and 7 · 67 vertices fit 1024, 11 · 131 do not.
    assert len(encoding.layout.levels) == 2
    assert not any(level.hashed for level in encoding.layout.levels)


def test_every_interpolation_is_in_the_docstring_and_the_readme() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    for name in INTERPOLATIONS:
        assert re.search(rf"\b{name}\b", str(GridEncoding.__doc__))
        assert f"`{name}`" in readme


@pytest.mark.parametrize(("degree", "name"), [(1, "linear"), (3, "cubic"), (9, "nonic")])
def test_splines_are_named_by_their_degree_too(degree: int, name: str) -> None:
    one, other = (
        GridEncoding(1, n_levels=2, interpolation=n, seed=0) for n in (name, f"bspline_{degree}")
    )
    other.load_state_dict(one.state_dict())
    assert other.layout is one.layout
    with pytest.raises(ValueError, match=r"interpolation='bspline_10'.*bspline_1 to bspline_9"):
        GridEncoding(1, interpolation="bspline_10")


def test_levels_too_fine_for_float32_coordinates_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2\^31\.0.*n_levels \(16\).*base_resolution \(65536\)"):
        GridEncoding(1, base_resolution=2**16)


def test_tables_too_large_to_address_are_refused_before_memory_is_taken() -> None:
    with pytest.raises(ValueError, match=r"log2_hashmap_size \(30\)"):
        GridEncoding(3, n_levels=16, log2_hashmap_size=30)


def test_the_defaults_are_tiny_cuda_nns() -> None:
    encoding = GridEncoding(2, seed=0)
    layout = encoding.layout
    assert layout.interpolation.name == "linear"
    assert len(layout.levels) == 16
    assert encoding.n_output_dims == 32
    assert encoding.n_features_per_level == 2
    assert layout.levels[0].resolutions[0] == 16
    assert max(level.n_rows for level in layout.levels) == 2**19
    assert encoding.params.dtype == torch.float32
    assert encoding.params.abs().max() <= 1e-4


@pytest.mark.parametrize("name", list(INTERPOLATIONS))
@pytest.mark.parametrize("log2", [3, 30])
def test_the_hash_map_size_at_its_limits(name: str, log2: int) -> None:
    encoding = GridEncoding(
        2, n_levels=2, log2_hashmap_size=log2, base_resolution=4, interpolation=name
    )
    sizes = [level.n_rows // encoding.layout.n_dofs for level in encoding.layout.levels]
    assert all(size <= 8 for size in sizes) == (log2 == 3)
    assert encoding(torch.rand(3, 2)).isfinite().all()


def test_the_table_is_uniform_between_plus_and_minus_its_scale() -> None:
    params = GridEncoding(2, init_scale=0.5, seed=1).params.detach()
    assert params.min() < -0.499
    assert params.max() > 0.499
    assert params.abs().max() <= 0.5
    # Standard error of the mean of n values from U(-s, s): s / √(3n).
    assert params.mean().abs() < 5 * 0.5 / (3 * params.numel()) ** 0.5
    assert (GridEncoding(1, init_scale=0.0).params == 0).all()


def test_a_seed_fixes_the_table_and_nothing_else() -> None:
    def table(seed: int | None) -> torch.Tensor:
        return GridEncoding(1, n_levels=2, seed=seed).params.detach()

    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first = table(7)
    torch.testing.assert_close(torch.rand(3), expected)  # the global generator is untouched
    assert (table(7) == first).all()
    assert (table(8) != first).any()
    torch.manual_seed(3)
    from_global = table(None)
    torch.manual_seed(3)
    assert (table(None) == from_global).all()
    assert (table(None) != from_global).any()


def test_a_state_dict_restores_the_encoding() -> None:
    one, other = (GridEncoding(1, interpolation="cubic", seed=seed) for seed in (0, 1))
    other.load_state_dict(one.state_dict())
    x = torch.rand(5, 1)
    torch.testing.assert_close(other(x), one(x), rtol=0, atol=0)


@pytest.mark.parametrize("text", ["", "1", "[1]", "null", "{"])
def test_a_state_dict_of_damaged_settings_is_refused(text: str) -> None:
    encoding = GridEncoding(1, seed=0)
    settings = torch.tensor(list(text.encode()), dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="settings of the state dict are damaged"):
        encoding.load_state_dict({**encoding.state_dict(), "_extra_state": settings})


def test_to_converts_table_and_outputs() -> None:
    encoding = GridEncoding(2, n_levels=2, interpolation="cubic", seed=0).to(torch.float64)
    assert encoding(torch.rand(3, 2, dtype=torch.float64)).dtype == torch.float64
