"""One module for each group of commands. A command reads its options, calls, and prints; errors are printed in main."""
