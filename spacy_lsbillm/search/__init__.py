"""The search for the layers to unmask."""
