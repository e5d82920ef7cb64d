"""Measurements. Only ratios within one run mean anything; nothing here is a test."""
