"""The Kubernetes operator: rolls out policy revisions, runs and scales Triton. Not built yet; nothing imports it."""
