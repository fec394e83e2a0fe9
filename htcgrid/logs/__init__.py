"""What handlers print, written as lines: to standard output or error, or into files of a folder."""
