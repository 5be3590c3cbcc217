"""Rows on this machine → validated records with line numbers. No torch, no pandas."""

from fedit_client.data.reading import OnError, read_records, records_from
from fedit_client.data.records import Message, Record, Role, RowFile, RowProblem, Shape

__all__ = ["Message", "OnError", "Record", "Role", "RowFile", "RowProblem", "Shape", "read_records", "records_from"]
