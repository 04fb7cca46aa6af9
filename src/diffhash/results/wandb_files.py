"""The W&B files in the folders of records."""

from __future__ import annotations

from pathlib import Path


def unsent_parts(directory: Path | str, run_id: str = "*") -> list[Path]:
    """Folders of offline W&B runs at or below ``directory`` that `wandb sync` has not sent.

    Folders of unfinished runs, and of killed runs that may yet be resumed, are left out.
    """
    parts = Path(directory).rglob(f"wandb/offline-run-*-{run_id}")
    return sorted(
        part
        for part in parts
        if not any(part.glob("*.synced"))
        and not any(name.endswith(".partial") for name in part.relative_to(directory).parts)
    )
