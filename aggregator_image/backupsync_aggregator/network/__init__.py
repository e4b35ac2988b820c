"""The socket's side: who may speak, what a peer may send, and what has come so far."""
