"""Exploration of a data set: figures, plots and sentences of EDA.ipynb."""
