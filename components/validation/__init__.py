"""Data validation: the contract per file, the Great Expectations suite over the table, quarantine and the report."""

from components.validation.component import ValidationSettings, validate

__all__ = ["ValidationSettings", "validate"]
