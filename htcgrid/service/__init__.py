"""AWS's Invoke API over any compute plane: what `htcgrid serve` offers."""
