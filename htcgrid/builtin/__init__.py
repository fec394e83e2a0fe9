"""The plugins that are part of htcgrid. Like all plugins, they are found only through their entry points."""
