"""The plugins that come with htcgrid. Like all plugins, they are found by their entry points only."""
