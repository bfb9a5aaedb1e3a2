"""The gRPC face: its protocol buffers, and what turns them into ours; what is decided is no matter of this package.

After a change of moderation.proto, in the repository's root:

    python -m grpc_tools.protoc -I sidecar -I <site-packages, which has google/rpc> \\
        --python_out=sidecar --pyi_out=sidecar baleen_sidecar/web/grpc/moderation.proto
"""
