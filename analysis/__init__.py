"""What one reads off a trajectory: measures, rates, spectra, comparisons, tables and plots."""
