"""Doubles of clouds for tests, and the real machines behind them. See README.md."""
