"""The operator's process: health first, then the Lease, then kopf. Built by the handlers it imports."""
