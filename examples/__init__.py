"""Examples that are programs of several files; the others are one file each."""
