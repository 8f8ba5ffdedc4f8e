"""The best way to run a model on this machine: every way is measured, one is chosen and written down."""

from infold.tune.report import Report
from infold.tune.run import Wish, tune
from infold.tune.subject import Subject, find
from infold.tune.writing import check_writable, write_plan

__all__ = ["Report", "Subject", "Wish", "check_writable", "find", "tune", "write_plan"]
