"""The toolkit for authors of compute planes: what several planes need and none should write for itself."""
