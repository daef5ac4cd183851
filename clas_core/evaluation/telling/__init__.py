"""What was found, told: tables, figures, reports, sentences."""
