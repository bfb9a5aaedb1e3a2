"""What the scripts of bench/ share: servers to compare, load, the machine's state, and the form of a result."""
