"""Students of one shape, trained together: their parameters are stacked, a step is one for all."""
