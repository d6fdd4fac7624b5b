"""Detection data: images with boxes, masks and classes of objects."""
