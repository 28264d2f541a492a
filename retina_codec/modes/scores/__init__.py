"""Scores: can modes be trusted."""
