"""The TFDS builder of the published data set. Importing this package imports no TFDS; its modules do."""
