"""Everything outside: Triton, disk, network, processes. One port each; foreign errors end here."""
