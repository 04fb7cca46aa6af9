"""Train one field: python train.py encoder=cubic task=pinn (--help lists what there is)."""

from diffhash.cli.command import one_line_interrupt, tolerant_output

with one_line_interrupt("train.py"):  # imports take seconds
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import DictConfig

    from diffhash.experiment.schema import register
    from diffhash.experiment.sweep import job_task

    register()


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Run the composed config; what it comes to is for a sweeper that optimises."""
    return job_task(cfg, HydraConfig.get().overrides.task)


if __name__ == "__main__":
    tolerant_output()
    with one_line_interrupt("train.py"):
        main()
