"""`python -m jaxvalues` is the command line."""

from jaxvalues.cli import main

main()
