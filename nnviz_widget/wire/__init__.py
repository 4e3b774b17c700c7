"""The protocol between the page and the kernel. Knows no torch and no ipywidgets."""
