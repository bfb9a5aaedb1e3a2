"""The shell: observe, plan, act, in this order; one file for each kind."""
