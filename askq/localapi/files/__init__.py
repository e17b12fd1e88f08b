"""What the local API keeps of files: their bytes, the objects that name them, containers, vector stores and search."""
