"""Raw sources -> datasets with one schema: the collection, basic, auxiliary and co-training data."""
