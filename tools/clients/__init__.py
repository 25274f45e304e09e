"""What `tools/demo` and `tools/test-clients` share."""
