"""Train one field: python train.py encoder=cubic task=pinn (--help lists what there is)."""

from diffhash.cli import train_command

if __name__ == "__main__":
    train_command()
