"""Live speech recognition: the runtime inside an engine, and sessions of clients."""
