"""Other libraries for PINNs on the same problems, each in an environment of its own."""
