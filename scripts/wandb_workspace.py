"""Create the saved view of the project in W&B; needs a login (`wandb login`)."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from hydra import compose, initialize_config_dir

from diffhash.cli.command import run_command
from diffhash.experiment.schema import register

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Parse the command line, save the view, print its address; 1 on an error."""
    register()
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        settings = compose("train", ["logger=wandb"]).logger.wandb
    parser = argparse.ArgumentParser(description=__doc__)
    option = parser.add_argument
    option("--project", default=settings.project, help="default: %(default)s")
    option("--entity", default=settings.entity, help="user or team (default: your own)")
    arguments = parser.parse_args()
    os.environ["WANDB_MODE"] = "online"  # the Makefile's is offline; a view lives on the server
    try:
        import wandb

        from diffhash.experiment.wandb_workspace import project_workspace
    except ModuleNotFoundError as error:
        if error.name not in ("wandb", "wandb_workspaces"):
            raise
        print("error: wandb-workspaces is not installed; "
              "pip install -c constraints.txt -e '.[workspace]'", file=sys.stderr)  # fmt: skip
        return 1
    try:
        if not wandb.login(prompt=False, verify=False):
            print("error: not logged in to W&B; run `wandb login` first", file=sys.stderr)
            return 1
        entity = arguments.entity or wandb.Api().default_entity
        print(project_workspace(entity, arguments.project).save().url)
    except Exception as error:  # whatever the server or the way to it answers
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    run_command("wandb_workspace", main)
