"""Detection's tests need Detectron2; everything else runs without it."""

import pytest

from tests.classify.conftest import cache  # noqa: F401 (where drawn scenes are kept)

pytest.importorskip("detectron2", reason="run `make install-det`")
