"""What the service leaves for whoever looks for a fault: its log, notes of crashes, traces."""
