"""What silencing an interneuron would do."""
