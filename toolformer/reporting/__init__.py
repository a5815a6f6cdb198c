"""In: a run folder. Out: console and README tables, figures, and one self-contained HTML page."""
