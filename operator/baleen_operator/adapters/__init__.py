"""The world outside: the API server, Triton, the gateways."""
