"""The kit's layer: a module that the handler can import only where the layer is on its path."""

CONTENT = "from the layer"
