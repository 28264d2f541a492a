"""Published recordings of white noise in MATLAB files, their frames made again from seeds."""
