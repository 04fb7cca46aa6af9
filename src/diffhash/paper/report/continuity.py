"""Figures 1 and 2 to be read closely: what each interpolation makes of u = sin(x)."""

from __future__ import annotations

from diffhash.paper.continuity import RESOLUTION, fit_sine
from diffhash.paper.report.plots import Control, Option, Plot, axis, markup, trace

# Colours as of the rows of a table that have the same names.
_GRIDS = {
    "linear": (Option("linear", "Linear", colour="--series-4"), {}),
    "cubic": (Option("cubic", "Cubic", colour="--series-6"), {}),
    "s1": (Option("s1", "S1", colour="--series-2"), {}),
    "s2": (Option("s2", "S2", colour="--series-5"), {}),
    "offset": (
        Option("offset", "S2, 4 levels, offset", colour="--series-1"),
        {"interpolation": "s2", "n_levels": 4, "level_offset": True},
    ),
}
_ORDERS = ("u", "u_x", "u_xx")
_PI_TICKS = {"tickvals": [i * 1.5707963 for i in range(5)],
             "ticktext": ["0", "π/2", "π", "3π/2", "2π"]}  # fmt: skip


def continuity_plot() -> Plot:
    """Figures 1 and 2 in one: u, u_x and u_xx of single grids of each interpolation."""
    curves = {
        name: fit_sine(**({"interpolation": name} | settings))
        for name, (_, settings) in _GRIDS.items()
    }
    x = curves["linear"].x.ravel()
    exact = {name: curves["linear"].exact[order].ravel() for order, name in enumerate(_ORDERS)}
    line = {"width": 7, "color": "--exact"}
    traces = [trace({"x": x} | exact, "x", "{quantity}", "exact, u = sin x", line=line)]
    for name, (option, _) in _GRIDS.items():
        fitted = {key: curves[name].broken(order)[1] for order, key in enumerate(_ORDERS)}
        columns = {"x": curves[name].broken(0)[0]} | fitted
        line = {"width": 1.6, "color": option.colour}
        traces.append(trace(columns, "x", "{quantity}", option.label, {"grid": name}, line=line))
    quantities = [Option(name, markup(f"mse_{name}")) for name in _ORDERS]
    options = [option for option, _ in _GRIDS.values()]
    return Plot(
        id="continuity",
        title="Figures 1 and 2. Continuity of the interpolations",
        caption=f"One grid of {RESOLUTION} cells that was given the values of sin x alone, and its "
        "exact derivatives; a line breaks where it is discontinuous. Offset: four such grids of S2 "
        "added up, each a quarter of a cell from the last.",
        description="Line plots over x from 0 to 2 pi of u, u_x and u_xx of grids fitted to a "
        f"sine, for {', '.join(option.label for option in options)}: u_x of Linear is a "
        "staircase and its u_xx is zero, those of Cubic lie on the exact curve, those of the "
        "smoothsteps oscillate about it.",
        controls=[
            Control("quantity", "Quantity", quantities, ["u_x"]),
            Control("grid", "Interpolation", options, ["linear", "cubic"], many=True),
        ],
        traces=traces,
        layout={"xaxis": axis("x", **_PI_TICKS), "yaxis": axis("{quantity}")},
        height=400,
        key={"exact": "--exact"},
    )
