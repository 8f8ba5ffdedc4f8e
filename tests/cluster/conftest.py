"""Ray reads its environment when it is imported, whichever test is the first to do that."""

import os

from cluster.stand import ENVIRONMENT

os.environ.update(ENVIRONMENT)
