"""What a mode looks at in images."""
