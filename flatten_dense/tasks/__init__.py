"""Tasks: a LightningModule each."""
