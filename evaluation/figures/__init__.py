"""Figures of reports, one family a file: pure functions from arrays and tables to plotly figures."""
