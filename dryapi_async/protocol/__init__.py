"""What the service's documentation says, as functions from values to values. Nothing here waits, opens, or asks for the time."""
