"""The composition root: configuration -> model, data, trainer; fit and evaluate."""
