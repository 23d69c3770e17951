"""How a service is at the moment, on a terminal: `vibevoice-asr monitor`."""
