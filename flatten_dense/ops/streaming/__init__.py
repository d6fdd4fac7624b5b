"""Focused linear attention in chunks of tokens that fit a processor's cache: any device, any type, no compiler."""
