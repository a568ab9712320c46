"""Tables: one reader for intake, training and predict. What the bytes leave open is decided once, at intake.

`reader.read_table` and `reader.read_columns` read a file: they decide a `TableFormat` (the dialect, and of each column
its type, missing words, separators and date format) and read every cell with it. The format is stored with the
prepared dataset and with the model. `request_rows.read_request` reads what a client sends to predict by that format,
and `ColumnFormat.read` reads one cell, at intake and at predict alike.

| module | what it holds |
|---|---|
| `column_format` | `ColumnFormat`: how one cell is read |
| `column_detection` | what a column is, from its cells |
| `dialect` | `Dialect`: encoding, delimiter, quote, header |
| `delimited`, `json_rows`, `parquet`, `excel` | from bytes to cells |
| `table_format` | `TableFormat`: the dialect and the columns, as they are stored |
| `request_rows` | the rows of a request to predict |
| `column_report` | what the report says of a column |
| `reader` | from a file to columns |
"""
