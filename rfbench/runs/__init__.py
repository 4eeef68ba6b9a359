"""What every training shares: folder, record, checkpoint, log, processes."""
