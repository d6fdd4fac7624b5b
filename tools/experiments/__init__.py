"""What the scripts that train several runs and compare them share."""
