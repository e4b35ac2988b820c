"""The wire protocol between workers and aggregator: messages, frames, schema and join. No sockets here."""
