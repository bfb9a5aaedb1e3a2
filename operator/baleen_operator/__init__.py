"""The Kubernetes operator: what authors write becomes revisions, routes and Triton servers, and a truthful status."""
