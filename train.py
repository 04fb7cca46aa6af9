"""Train one field: python train.py encoder=cubic task=pinn (--help lists what there is)."""

import os
import sys
from pathlib import Path

from diffhash.cli.command import one_line_interrupt, tolerant_output

with one_line_interrupt("train.py"):  # imports take seconds
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import DictConfig

    from diffhash.experiment.composing import composition_error
    from diffhash.experiment.schema import register
    from diffhash.experiment.sweep import job_task

    register()


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Run the composed config; what it comes to is for a sweeper that optimises."""
    return job_task(cfg, HydraConfig.get().overrides.task)


def refuse_bad_settings() -> None:
    """End with one line where Hydra would print its own report; a sweep composes its own jobs."""
    overrides = sys.argv[1:]
    if any(one.startswith("-") for one in overrides) or os.environ.get("HYDRA_FULL_ERROR") == "1":
        return
    configs = Path(__file__).resolve().parent / "configs"
    if problem := composition_error(configs, "train", overrides):
        print(f"error: {problem}", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    tolerant_output()
    with one_line_interrupt("train.py"):
        refuse_bad_settings()
        main()
