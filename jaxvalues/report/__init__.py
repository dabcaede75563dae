"""Reports: pages, tables and figures made of the results of a study."""

from jaxvalues.report.write import write_report

__all__ = ["write_report"]
