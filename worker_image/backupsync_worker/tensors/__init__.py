"""The user's model as flat tensors, and the gradient of one ticket. No sockets."""
