"""How good the predictions are: metrics with intervals, paired tests, robustness."""
