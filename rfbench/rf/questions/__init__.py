"""One folder for each question about a receptive field, named as its subcommand of `rfbench rf`."""
