"""What the wires over HTTP share; no wire itself."""
