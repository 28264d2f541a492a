"""Maps of modes in images, and galleries of top images."""
