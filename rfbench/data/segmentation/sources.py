"""The data sets for segmentation by name. A new one is a function that returns a `SegSet`, and one
entry here.
"""

from rfbench.data.sources import Source

_HERE = "rfbench.data.segmentation"

# values of `data.name` of train-seg, in schema and errors
SOURCES: dict[str, Source] = {
    "digits": Source(f"{_HERE}.digits:digits", "scenes of MNIST digits, embedded"),
    "m2nist_like": Source(f"{_HERE}.digits:m2nist_like", "MNIST digits on black, embedded"),
    "m2nist": Source(f"{_HERE}.m2nist:m2nist", "combined.npy and segmented.npy"),
    "voc": Source(f"{_HERE}.voc:voc", "VOCdevkit/VOC2012"),
    "cityscapes": Source(f"{_HERE}.cityscapes:cityscapes", "leftImg8bit/ and gtFine/"),
    "camvid": Source(f"{_HERE}.camvid:camvid", "SegNet's 11 classes, or class_dict.csv's"),
    "folder": Source(f"{_HERE}.folder:folder", "images/ and masks/ as index PNGs"),
}
