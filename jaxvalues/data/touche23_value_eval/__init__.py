"""The TFDS builder of the published data set. Importing this package does not import TFDS."""
