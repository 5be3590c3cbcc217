"""Rows on this machine → validated records with line numbers. No torch, no pandas."""

from fedit_client.data.columns import Columns
from fedit_client.data.reading import OnError, read_records, records_from
from fedit_client.data.records import Message, Record, Role, RowFile, RowProblem, Shape
from fedit_client.data.sources import DataSource, MemorySource, Source, read_source

__all__ = [
    "Columns",
    "DataSource",
    "MemorySource",
    "Message",
    "OnError",
    "Record",
    "Role",
    "RowFile",
    "RowProblem",
    "Shape",
    "Source",
    "read_records",
    "read_source",
    "records_from",
]
