"""The `baleen` command: serving locally, models, policies. It may import both wings; nothing imports it."""
