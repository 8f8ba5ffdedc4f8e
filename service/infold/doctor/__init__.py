"""What this machine, these settings and this repository would come to; nothing is changed to find out."""

from infold.doctor.examination import Examination, examine
from infold.doctor.findings import Finding, Level

__all__ = ["Examination", "Finding", "Level", "examine"]
