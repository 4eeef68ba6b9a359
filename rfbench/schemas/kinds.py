"""The schema of each kind of run."""

from pydantic import BaseModel

from rfbench.schemas.cls import ClsConfig
from rfbench.schemas.det import DetConfig
from rfbench.schemas.grid import GridConfig
from rfbench.schemas.rf import RfConfig
from rfbench.schemas.seg import SegConfig

# KIND of `rfbench schema` -> schema
SCHEMAS: dict[str, type[BaseModel]] = {
    "rf": RfConfig,
    "cls": ClsConfig,
    "det": DetConfig,
    "seg": SegConfig,
    "grid": GridConfig,
}
