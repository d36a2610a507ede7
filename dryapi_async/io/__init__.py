"""Everything that waits: connections, uploads, downloads. It moves wire calls and doesn't know what an image is."""
