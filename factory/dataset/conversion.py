"""Conversion of clips between versions of the schema."""

from __future__ import annotations

import pyarrow as pa

from factory.dataset.schema import ADDED_COLUMNS


def convert_clips(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Convert clips to an earlier or later version of the schema, so that one dataset has one set of columns.

    Columns that `schema` lacks are dropped, columns that the clips lack are null; only ADDED_COLUMNS may differ.

    Args:
        table: clips.
        schema: columns of the dataset that they are added to.

    Returns:
        The clips with exactly the columns of `schema`, or `table` itself if other columns differ.
    """
    if not set(table.column_names) ^ set(schema.names) <= set(ADDED_COLUMNS):
        return table
    version = max((ADDED_COLUMNS[name] for name in ADDED_COLUMNS if name in schema.names), default="2")
    columns = []
    for column in schema:
        if column.name == "schema_version":
            columns.append(pa.array([version] * len(table), column.type))
        elif column.name in table.column_names:
            columns.append(table[column.name])
        else:
            columns.append(pa.nulls(len(table), column.type))
    return pa.table(columns, schema=schema)
