"""What is on disk: claims of epochs, checkpoints, model files; and when they are written."""
