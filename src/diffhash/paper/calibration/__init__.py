"""Search for the hyper-parameters of a preset, and what it leaves behind."""
