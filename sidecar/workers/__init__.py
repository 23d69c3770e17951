"""Worker processes of engines and the RPC to them."""
