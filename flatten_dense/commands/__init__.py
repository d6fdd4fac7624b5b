"""Sub-commands of `flatten-dense`, a file each."""
