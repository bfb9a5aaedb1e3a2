"""Pure laws of sampling, windows and coverage."""
