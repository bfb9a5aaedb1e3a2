"""Models: reading ModelDeployments, preparing inputs, rendering Triton's files, checking golden answers."""
