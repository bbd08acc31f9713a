"""Quality of predictions: metrics with confidence intervals, paired tests, robustness."""
