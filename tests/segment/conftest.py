"""Where drawn scenes are kept while the tests run."""

from tests.classify.conftest import cache  # noqa: F401
