"""What every model stands on."""
