"""The gRPC face: its protocol buffers, and what turns them into ours; what is decided is no matter of this package."""
