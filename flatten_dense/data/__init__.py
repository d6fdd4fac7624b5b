"""Reading data sets from disk, and preparing their images for training, evaluation and prediction."""
