"""The view of the project in W&B, as code.

Runs are grouped by task, encoder and preset, so a line is the median over the seeds, with a band
from the least to the largest. What is shown is what `diffhash.experiment.wandb_run` logs.
"""

from __future__ import annotations

from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces import expr

from diffhash.results.metrics import metric

_METRICS = ("mse_u", "mse_ux", "mse_uxx", "l2_u", "loss")  # those of every problem in x alone
_COLUMNS = ("status", *_METRICS, "epochs", "train_seconds", "peak_memory_mb", "n_parameters")
_GROUPS = ("task.name", "encoder.name", "encoder.preset")


def project_workspace(entity: str, project: str) -> ws.Workspace:
    """The workspace, not yet saved: its ``save()`` needs the network and a login.

    Args:
        entity: user or team in W&B.
        project: its project.
    """
    return ws.Workspace(
        entity=entity,
        project=project,
        name="diffhash: encoders and tasks",
        sections=[
            _histories("History over epochs", "epoch", "epochs"),
            _histories("History over train seconds", "history/seconds", "train seconds"),
            ws.Section(
                name="Final metrics beside known ones",
                panels=[wr.WeavePanelSummaryTable(table_name="final")],
                is_open=True,
                layout_settings=ws.SectionLayoutSettings(columns=1, rows=1),
            ),
            ws.Section(
                name="Error, cost and what decides on them",
                panels=[
                    wr.ScatterPlot(
                        title="Error and cost",
                        x=wr.SummaryMetric("train_seconds"),
                        y=wr.SummaryMetric("mse_u"),
                        log_x=True,
                        log_y=True,
                    ),
                    wr.ParameterImportancePlot(with_respect_to="log10_mse_u"),
                ],
                is_open=True,
            ),
            ws.Section(
                name="Predictions",
                panels=[wr.MediaBrowser(media_keys=["predictions"], num_columns=2)],
                is_open=True,
            ),
        ],
        runset_settings=ws.RunsetSettings(
            groupby=[expr.Config(name) for name in _GROUPS],
            pinned_columns=[f"summary:{name}" for name in _COLUMNS],
        ),
    )


def _histories(title: str, x: str, title_x: str) -> ws.Section:
    panels: list[Any] = [
        wr.LinePlot(
            title=metric(name).label,
            x=x,
            y=[f"history/{name}"],
            log_y=True,
            title_x=title_x,
            groupby_aggfunc="median",
            groupby_rangefunc="minmax",
        )
        for name in _METRICS
    ]
    layout = ws.SectionLayoutSettings(columns=2, rows=2)
    return ws.Section(name=title, panels=panels, is_open=True, layout_settings=layout)
