"""Tests that run pods. It is a package so that the cluster which they share ends with the last of them."""
