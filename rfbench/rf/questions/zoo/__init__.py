"""Every architecture of the libraries: `rfbench rf zoo`."""
