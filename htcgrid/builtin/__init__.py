"""The plugins that come with htcgrid. As any other plugins, they are reached by entry point only."""
