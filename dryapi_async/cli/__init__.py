"""The command: thin, its flags built from the fields of the request classes."""
