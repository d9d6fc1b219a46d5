"""Data analysis: principal components, clustering, regression, column subsets. Samples are rows."""
