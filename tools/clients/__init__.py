"""What `tools/demo`, `tools/test-clients` and `tools/rolling-kills` share."""
