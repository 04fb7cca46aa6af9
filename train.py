"""Train one field: python train.py encoder=cubic task=pinn (--help lists what there is)."""

try:
    from diffhash.cli import train_command
except ModuleNotFoundError as error:
    if error.name != "diffhash":
        raise
    raise SystemExit(
        "train.py: this Python has no diffhash: `make setup` installs it into .venv; then "
        "`source .venv/bin/activate`"
    ) from None

if __name__ == "__main__":
    train_command()
