"""The score log: records on local disk first, shipped to the object store, read back as a table."""
