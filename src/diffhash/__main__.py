"""``python -m diffhash``: the command ``diffhash``, where its folder is not on the PATH."""

from diffhash.cli import main

if __name__ == "__main__":
    main()
