"""The plugins that come with htcgrid. Like anybody's, they are reached by entry point only."""
